//! An SQS endpoint of our own with one queue, as fast as a flood needs it: moto takes a second for each batch of ten out
//! of hundreds. It speaks the JSON protocol, runs on a thread of its own, and hides nothing that was read.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::harness::until_or;

/// The endpoint. Its thread ends with the process.
#[derive(Debug)]
pub struct SqsEndpoint {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Vec<(u64, String)>,
    read: Vec<(u64, String)>,
    sent: u64,
    calls: Vec<String>,
    refused: Option<(String, &'static str)>,
}

impl SqsEndpoint {
    /// Serves an empty queue on a free loopback port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("the listener's address");
        let shared = Arc::default();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(accept(listener, serving));
        });
        Self { address, shared }
    }

    /// Where it listens, as `endpoint_url` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a message into the queue.
    pub fn send(&self, body: &str) {
        let mut shared = lock(&self.shared);
        shared.sent += 1;
        let receipt = shared.sent;
        shared.waiting.push((receipt, body.to_owned()));
    }

    /// Waits until all messages are deleted.
    pub fn await_empty(&self) {
        let left = || {
            let shared = lock(&self.shared);
            (shared.waiting.len(), shared.read.len())
        };
        until_or(|| format!("all are deleted: {:?} are not", left()), || (left() == (0, 0)).then_some(()));
    }

    /// How many messages have not been read.
    pub fn waiting(&self) -> usize {
        lock(&self.shared).waiting.len()
    }

    /// Refuses an operation with this code from now on.
    pub fn refuse(&self, operation: &str, code: &'static str) {
        lock(&self.shared).refused = Some((operation.to_owned(), code));
    }

    /// All is well again.
    pub fn heal(&self) {
        lock(&self.shared).refused = None;
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: &str) -> usize {
        lock(&self.shared).calls.iter().filter(|call| *call == operation).count()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no panic while locked")
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| answer(request, Arc::clone(&shared)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Mutex<Shared>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.trim_start_matches("AmazonSQS.").to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let refused = {
        let mut shared = lock(&shared);
        shared.calls.push(operation.clone());
        shared.refused.clone().filter(|(refused, _)| *refused == operation)
    };
    let (status, answer) = match (refused, operation.as_str()) {
        (Some((_, code)), _) => {
            (400, json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "as the test has it" }))
        }
        (None, "ReceiveMessage") => (200, receive(&asked, &shared).await),
        (None, "DeleteMessageBatch") => (200, lock(&shared).delete(&asked)),
        (None, _) => (400, json!({ "__type": "com.amazonaws.sqs#UnsupportedOperation", "message": operation })),
    };
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    Ok(response.body(Full::from(answer.to_string())).expect("a response"))
}

async fn receive(asked: &Value, shared: &Mutex<Shared>) -> Value {
    let deadline = Instant::now() + Duration::from_secs(asked["WaitTimeSeconds"].as_u64().unwrap_or(0));
    let most = usize::try_from(asked["MaxNumberOfMessages"].as_u64().unwrap_or(1)).expect("a number");
    let stays_visible = asked["VisibilityTimeout"] == 0;
    loop {
        let found: Vec<_> = {
            let mut shared = lock(shared);
            let count = shared.waiting.len().min(most);
            let found: Vec<_> = shared.waiting.iter().take(count).cloned().collect();
            if !stays_visible {
                shared.waiting.drain(..count);
                shared.read.extend(found.clone());
            }
            found
        };
        if !found.is_empty() || Instant::now() >= deadline {
            let message = |(receipt, body): &(u64, String)| json!({ "MessageId": receipt.to_string(), "ReceiptHandle": receipt.to_string(), "Body": body });
            return json!({ "Messages": found.iter().map(message).collect::<Vec<_>>() });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Shared {
    fn delete(&mut self, asked: &Value) -> Value {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in asked["Entries"].as_array().into_iter().flatten() {
            let receipt = entry["ReceiptHandle"].as_str().and_then(|receipt| receipt.parse::<u64>().ok());
            let before = self.read.len();
            self.read.retain(|(read, _)| Some(*read) != receipt);
            if self.read.len() < before {
                successful.push(json!({ "Id": entry["Id"] }));
            } else {
                failed.push(json!({ "Id": entry["Id"], "SenderFault": true, "Code": "ReceiptHandleIsInvalid" }));
            }
        }
        json!({ "Successful": successful, "Failed": failed })
    }
}
