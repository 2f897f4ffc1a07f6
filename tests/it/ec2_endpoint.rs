//! An EC2 and Auto Scaling endpoint of our own: the calls that elasticd makes, over plain HTTP on the loopback, with
//! faults on demand.
//!
//! It runs on a thread and a runtime of its own, so that tests of the library and of the program can use it alike:
//! point `endpoint_url`, or `AWS_ENDPOINT_URL_EC2`, at [`Endpoint::url`]. Filters by tag, status and event are applied,
//! others are only recorded.

#[path = "ec2_endpoint/xml.rs"]
mod xml;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// What EC2 lists of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub id: String,
    pub private_ip: Option<String>,
    pub public_ip: Option<String>,
    /// On the instance itself.
    pub ipv6: Option<String>,
    /// On its network interface.
    pub interface_ipv6: Option<String>,
    pub zone: String,
    pub state: String,
    pub tags: Vec<(String, String)>,
    /// Tags that have a key and nothing else.
    pub valueless: Vec<String>,
    pub vpc: Option<String>,
    pub subnet: Option<String>,
    pub kind: Option<String>,
    /// Its lifecycle state and its health in the Auto Scaling group that its tag names. None: the group does not list it.
    pub lifecycle: Option<(String, String)>,
    /// Which of its checks fails: `system` or `instance`.
    pub impaired: Option<String>,
    /// The event it is scheduled for: code, time and description.
    pub event: Option<(String, String, String)>,
    /// Its spot request's status code.
    pub spot: Option<String>,
}

/// The tag in which Auto Scaling names an instance's group.
pub const GROUP: &str = "aws:autoscaling:groupName";

impl Machine {
    /// A running machine `i-NUMBER` with a private address made of the number, and these tags.
    pub fn numbered(number: u32, tags: &[(&str, &str)]) -> Self {
        let [_, b, c, d] = number.to_be_bytes();
        Self {
            id: format!("i-{number:017x}"),
            private_ip: Some(format!("10.{b}.{c}.{d}")),
            zone: format!("eu-west-1{}", ["a", "b", "c"][number as usize % 3]),
            state: "running".to_owned(),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Self::default()
        }
    }
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 503 `RequestLimitExceeded`.
    Throttled,
    /// 403 `UnauthorizedOperation`.
    Unauthorized,
    /// 401 `AuthFailure`.
    AuthFailure,
    /// 400 `ExpiredToken`.
    ExpiredToken,
    /// Any of EC2's errors: status and code.
    Code(u16, &'static str),
    /// A proxy's page with this status.
    Html(u16),
    /// The connection ends in the middle of the body.
    CutOff,
    /// The body is but half of the page, and says that it is whole.
    Truncated,
    /// The page with its tags' ends mixed up.
    Garbled,
    /// The page, a byte after the other, with so long between them.
    Trickle(Duration),
    /// The whole answer, this much later.
    Slow(Duration),
    /// The page names the second page as the next, whichever it is.
    RepeatedToken,
    /// The page holds nothing, and yet names the next.
    EmptyPage,
}

/// Which requests a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every one from now on.
    Always,
    /// The next ones, so many.
    Next(usize),
    /// Every one for this page, counted from 1.
    Page(usize),
    /// Every one signed for this region.
    Region(&'static str),
    /// Every one of this action.
    Call(&'static str),
}

/// A request's form, decoded.
pub type Form = BTreeMap<String, String>;

/// The endpoint; it ends when dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    machines: Vec<Machine>,
    /// Rendered when first asked for, by what was asked but for the token.
    pages: HashMap<Form, Arc<Vec<Bytes>>>,
    page_size: Option<usize>,
    faults: Vec<(When, Fault)>,
    requests: Vec<Form>,
    arrivals: Vec<Instant>,
    signers: Vec<Signer>,
}

/// Whose key signed a request, and for which region.
#[derive(Debug, Clone, Default)]
struct Signer {
    key: String,
    region: String,
}

impl Endpoint {
    /// Serves these machines on a free loopback port.
    pub fn start(machines: Vec<Machine>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("the listener's address");
        let shared = Arc::new(Mutex::new(Shared { machines, ..Shared::default() }));
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens, as `endpoint_url` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces all machines.
    pub fn set_instances(&self, machines: Vec<Machine>) {
        let mut shared = lock(&self.shared);
        shared.machines = machines;
        shared.pages.clear();
    }

    /// Cuts pages of this size, whatever `MaxResults` says; `None` returns to what it says.
    pub fn set_page_size(&self, size: Option<usize>) {
        let mut shared = lock(&self.shared);
        shared.page_size = size;
        shared.pages.clear();
    }

    /// Adds a fault; of several that meet a request, the first added strikes.
    pub fn fault(&self, when: When, fault: Fault) {
        lock(&self.shared).faults.push((when, fault));
    }

    /// All is well again.
    pub fn heal(&self) {
        lock(&self.shared).faults.clear();
    }

    /// The requests so far, in order, those met by a fault included.
    pub fn requests(&self) -> Vec<Form> {
        lock(&self.shared).requests.clone()
    }

    /// When they came.
    pub fn arrivals(&self) -> Vec<Instant> {
        lock(&self.shared).arrivals.clone()
    }

    /// The access key and region that signed each: `KEY REGION`.
    pub fn signers(&self) -> Vec<String> {
        lock(&self.shared).signers.iter().map(|signer| format!("{} {}", signer.key, signer.region)).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
            // A fault ends the connection with an error, as it should.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The parts of a body; an error among them ends the connection.
type Parts = Vec<Result<Bytes, std::io::Error>>;
type AnyBody = std::pin::Pin<Box<dyn Body<Data = Bytes, Error = std::io::Error> + Send>>;

async fn answer(request: Request<Incoming>, shared: Arc<Mutex<Shared>>) -> Result<Response<AnyBody>, Infallible> {
    let signer = signer(&request);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = decoded(&body);
    let action = form.get("Action").cloned().unwrap_or_default();
    let (page, pages, fault) = lock(&shared).take(form, signer);
    if action == "AssumeRole" {
        return Ok(no_such_role());
    }
    if let Some(Fault::Slow(pause)) = &fault {
        tokio::time::sleep(*pause).await;
    }
    let whole = pages.get(page).cloned();
    Ok(match (fault, whole) {
        (None | Some(Fault::Slow(_)), Some(whole)) => respond(200, "text/xml", vec![Ok(whole)]),
        (Some(Fault::CutOff), Some(whole)) => cut_off(&whole),
        (Some(Fault::Truncated), Some(whole)) => respond(200, "text/xml", vec![Ok(whole.slice(..whole.len() / 2))]),
        (Some(Fault::Garbled), Some(whole)) => respond(200, "text/xml", vec![Ok(xml::garbled(&whole))]),
        (Some(Fault::Trickle(pause)), Some(whole)) => trickle(whole, pause),
        (Some(Fault::RepeatedToken), Some(whole)) => respond(200, "text/xml", vec![Ok(xml::repeating(&whole))]),
        (Some(Fault::EmptyPage), Some(_)) => {
            let next = (page + 1 < pages.len()).then_some(page + 1);
            respond(200, "text/xml", vec![Ok(xml::page(&action, &[], next))])
        }
        (Some(Fault::Html(status)), _) => respond(
            status,
            "text/html",
            vec![Ok(Bytes::from_static(b"<!doctype html><title>oops</title><h1>Oops</h1>"))],
        ),
        (Some(fault), _) => refuse(&fault, &action),
        (None, None) => error(&action, 400, "InvalidParameterValue", "NextToken is not one of ours"),
    })
}

/// From the signature's scope: `... Credential=KEY/DATE/REGION/ec2/aws4_request, ...`.
fn signer(request: &Request<Incoming>) -> Signer {
    let signature = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope = signature.split_once("Credential=").map_or("", |(_, scope)| scope);
    let mut parts = scope.split('/').map(str::to_owned);
    Signer { key: parts.next().unwrap_or_default(), region: parts.nth(1).unwrap_or_default() }
}

impl Shared {
    /// Records the request, and finds its page and its fault.
    fn take(&mut self, form: Form, signer: Signer) -> (usize, Arc<Vec<Bytes>>, Option<Fault>) {
        let page = form.get("NextToken").map_or(Some(0), |token| xml::page_of(token)).unwrap_or(usize::MAX);
        let mut asked = form.clone();
        asked.remove("NextToken");
        let (machines, size) = (&self.machines, self.page_size);
        let pages =
            Arc::clone(self.pages.entry(asked).or_insert_with_key(|asked| Arc::new(xml::pages(machines, asked, size))));
        let fault = self.strike(page, &signer.region, form.get("Action").map_or("", |action| action));
        self.requests.push(form);
        self.arrivals.push(Instant::now());
        self.signers.push(signer);
        (page, pages, fault)
    }

    fn strike(&mut self, page: usize, region: &str, action: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(when, _)| match when {
            When::Always | When::Next(_) => true,
            When::Page(number) => page.checked_add(1) == Some(*number),
            When::Region(name) => *name == region,
            When::Call(name) => *name == action,
        })?;
        let fault = self.faults[at].1.clone();
        if let When::Next(left) = &mut self.faults[at].0 {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.faults.remove(at);
            }
        }
        Some(fault)
    }
}

fn refuse(fault: &Fault, action: &str) -> Response<AnyBody> {
    let error = |status, code, message| error(action, status, code, message);
    let auto_scaling = action == "DescribeAutoScalingGroups";
    match fault {
        Fault::Throttled if auto_scaling => error(400, "Throttling", "Rate exceeded"),
        Fault::Throttled => error(503, "RequestLimitExceeded", "Request limit exceeded."),
        Fault::Unauthorized if auto_scaling => error(403, "AccessDenied", "User: x is not authorized to perform this."),
        Fault::Unauthorized => error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
        Fault::AuthFailure => error(401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
        Fault::ExpiredToken => error(400, "ExpiredToken", "The security token included in the request is expired"),
        Fault::Code(status, code) => error(*status, code, "As the test has it."),
        _ => error(400, "InvalidParameterValue", "NextToken is not one of ours"),
    }
}

fn error(action: &str, status: u16, code: &str, message: &str) -> Response<AnyBody> {
    respond(status, "text/xml", vec![Ok(xml::error(action, code, message))])
}

/// What STS says where a role may not be assumed: this endpoint knows none.
fn no_such_role() -> Response<AnyBody> {
    let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                <Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error>\
                <RequestId>fake</RequestId></ErrorResponse>";
    respond(403, "text/xml", vec![Ok(Bytes::from_static(body.as_bytes()))])
}

fn cut_off(whole: &Bytes) -> Response<AnyBody> {
    let broken = std::io::Error::other("cut off, as the test has it");
    respond(200, "text/xml", vec![Ok(whole.slice(..whole.len() / 2)), Err(broken)])
}

fn trickle(whole: Bytes, pause: Duration) -> Response<AnyBody> {
    let length = whole.len();
    let bytes = stream::iter(0..length).then(move |at| {
        let byte = whole.slice(at..=at);
        async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(byte))
        }
    });
    let body: AnyBody = Box::pin(StreamBody::new(bytes));
    Response::builder().header("content-type", "text/xml").body(body).expect("a response")
}

fn respond(status: u16, kind: &str, parts: Parts) -> Response<AnyBody> {
    let parts = stream::iter(parts).then(async |part| {
        if part.is_err() {
            // What came before must have left, or else the answer never begins.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        part.map(Frame::data)
    });
    let body: AnyBody = Box::pin(StreamBody::new(parts));
    let status = StatusCode::from_u16(status).expect("a status");
    Response::builder().status(status).header("content-type", kind).body(body).expect("a response")
}

fn decoded(body: &[u8]) -> Form {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (unescaped(key), unescaped(value))).collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
