//! An EC2 endpoint in this process: pages rendered beforehand, and faults on demand.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An error in EC2's own form, with this status and code.
    Refuse(u16, &'static str),
    /// What a proxy, or a server that fell over, says.
    Html500,
    /// The connection ends in the middle of the answer.
    CloseMidBody,
    /// No answer until the client gives up.
    Silent,
    /// The page's token is the first page's.
    RepeatToken,
}

#[derive(Default)]
struct State {
    pages: Vec<Bytes>,
    /// By page, counted from 0; `None` is every page.
    fault: Option<(Option<usize>, Fault)>,
    requests: Vec<BTreeMap<String, String>>,
}

/// The endpoint. It ends when dropped.
pub struct Ec2Endpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Ec2Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Ec2Endpoint {
    /// Listens on a free loopback port; answers with these pages, each a list of instance ids.
    pub async fn start(pages: &[Vec<String>]) -> Self {
        let rendered = pages.iter().enumerate().map(|(i, ids)| render(ids, i + 1 < pages.len(), i + 1)).collect();
        let state = Arc::new(Mutex::new(State { pages: rendered, ..State::default() }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, server }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this goes wrong: on one page, counted from 0, or on each.
    pub fn fail(&self, page: Option<usize>, fault: Fault) {
        lock(&self.state).fault = Some((page, fault));
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        lock(&self.state).fault = None;
    }

    /// The form parameters of every request until now.
    pub fn requests(&self) -> Vec<BTreeMap<String, String>> {
        lock(&self.state).requests.clone()
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    if matches!(lock(&state).fault, Some((_, Fault::CloseMidBody))) {
        return close_mid_body(stream).await;
    }
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    // A client that gives up is one of the things tested.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// hyper would not break its own promise of a length.
async fn close_mid_body(mut stream: TcpStream) {
    let mut request = [0; 16 * 1024];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n<DescribeInstancesResponse>").await;
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = decode(&body);
    let page = form.get("NextToken").map_or(0, |token| token.parse().expect("a token of ours"));
    let (fault, content) = {
        let mut state = lock(&state);
        state.requests.push(form);
        let fault = state.fault.clone().filter(|(at, _)| at.is_none_or(|at| at == page)).map(|(_, fault)| fault);
        (fault, state.pages[page].clone())
    };
    Ok(match fault {
        None | Some(Fault::CloseMidBody) => respond(200, content),
        Some(Fault::RepeatToken) => respond(200, render(&[], true, 1)),
        Some(Fault::Html500) => respond(500, Bytes::from_static(b"<!doctype html><title>500</title><p>Oh no")),
        Some(Fault::Refuse(status, code)) => respond(status, refusal(code)),
        Some(Fault::Silent) => std::future::pending().await,
    })
}

fn respond(status: u16, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status.try_into().expect("a status");
    response
}

fn refusal(code: &str) -> Bytes {
    let error = format!("<Error><Code>{code}</Code><Message>said the fake</Message></Error>");
    format!("<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>").into()
}

fn render(ids: &[String], more: bool, next: usize) -> Bytes {
    let mut xml = String::from(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet><item>\
         <instancesSet>",
    );
    for (i, id) in ids.iter().enumerate() {
        let _ = write!(
            xml,
            "<item><instanceId>{id}</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
             <privateIpAddress>10.{next}.{}.{}</privateIpAddress><placement><availabilityZone>eu-west-1a\
             </availabilityZone></placement><launchTime>2024-05-01T00:00:00.000Z</launchTime><tagSet><item><key>Role\
             </key><value>web</value></item></tagSet><networkInterfaceSet><item><ipv6AddressesSet><item><ipv6Address>\
             2001:db8::{i:x}</ipv6Address></item></ipv6AddressesSet></item></networkInterfaceSet></item>",
            i / 250,
            i % 250
        );
    }
    xml.push_str("</instancesSet></item></reservationSet>");
    if more {
        let _ = write!(xml, "<nextToken>{next}</nextToken>");
    }
    xml.push_str("</DescribeInstancesResponse>");
    xml.into()
}

fn decode(body: &[u8]) -> BTreeMap<String, String> {
    let body = String::from_utf8_lossy(body);
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (unescape(key), unescape(value))).collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
