//! An EC2 endpoint of our own: `DescribeInstances` over plain HTTP on the loopback, from pages rendered beforehand,
//! with faults on demand.
//!
//! It runs on a thread and a runtime of its own, so that tests of the library and of the program can use it alike:
//! point `endpoint_url`, or `AWS_ENDPOINT_URL_EC2`, at [`Endpoint::url`]. Filters are recorded and not applied.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

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
}

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
    /// Rendered when first asked for, by page size.
    pages: HashMap<usize, Arc<Vec<Bytes>>>,
    page_size: Option<usize>,
    faults: Vec<(When, Fault)>,
    requests: Vec<Form>,
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
        lock(&self.shared).page_size = size;
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

    /// Who signed them: `KEY REGION` of each.
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
    let to_sts = form.get("Action").is_some_and(|action| action == "AssumeRole");
    let (page, pages, fault) = lock(&shared).take(form, signer);
    if to_sts {
        return Ok(no_such_role());
    }
    if let Some(Fault::Slow(pause)) = &fault {
        tokio::time::sleep(*pause).await;
    }
    let whole = pages.get(page).cloned();
    Ok(match (fault, whole) {
        (None | Some(Fault::Slow(_)), Some(whole)) => respond(200, "text/xml", vec![Ok(whole)]),
        (Some(Fault::CutOff), Some(whole)) => cut_off(&whole),
        (Some(Fault::RepeatedToken), Some(whole)) => respond(200, "text/xml", vec![Ok(repeating(&whole))]),
        (Some(Fault::EmptyPage), Some(_)) => {
            respond(200, "text/xml", vec![Ok(self::page(&[], (page + 1 < pages.len()).then_some(page + 1)))])
        }
        (Some(Fault::Html(status)), _) => respond(
            status,
            "text/html",
            vec![Ok(Bytes::from_static(b"<!doctype html><title>oops</title><h1>Oops</h1>"))],
        ),
        (Some(fault), _) => refuse(&fault),
        (None, None) => error(400, "InvalidParameterValue", "NextToken is not one of ours"),
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
        let asked = form.get("MaxResults").and_then(|size| size.parse().ok()).unwrap_or(usize::MAX);
        let size = self.page_size.unwrap_or(asked).max(1);
        let page = form.get("NextToken").map_or(Some(0), |token| page_of(token)).unwrap_or(usize::MAX);
        self.requests.push(form);
        let machines = &self.machines;
        let pages = Arc::clone(self.pages.entry(size).or_insert_with(|| Arc::new(rendered(machines, size))));
        let fault = self.strike(page, &signer.region);
        self.signers.push(signer);
        (page, pages, fault)
    }

    fn strike(&mut self, page: usize, region: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(when, _)| match when {
            When::Always | When::Next(_) => true,
            When::Page(number) => page.checked_add(1) == Some(*number),
            When::Region(name) => *name == region,
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

fn refuse(fault: &Fault) -> Response<AnyBody> {
    match fault {
        Fault::Throttled => error(503, "RequestLimitExceeded", "Request limit exceeded."),
        Fault::Unauthorized => error(403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
        Fault::AuthFailure => error(401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
        Fault::ExpiredToken => error(400, "ExpiredToken", "The security token included in the request is expired"),
        Fault::Code(status, code) => error(*status, code, "As the test has it."),
        _ => error(400, "InvalidParameterValue", "NextToken is not one of ours"),
    }
}

fn error(status: u16, code: &str, message: &str) -> Response<AnyBody> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}\
         </Message></Error></Errors><RequestID>fake</RequestID></Response>"
    );
    respond(status, "text/xml", vec![Ok(body.into())])
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

/// The page, but with the first page's token for the next one.
fn repeating(page: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(page);
    let (list, _) = text.split_once("<nextToken>").unwrap_or((text.trim_end_matches(END), ""));
    format!("{list}<nextToken>{}</nextToken>{END}", token_of(1)).into()
}

const END: &str = "</DescribeInstancesResponse>";

fn token_of(page: usize) -> String {
    // Tokens are long, and hold what a form must encode.
    format!("page+{page}/={}", "x".repeat(200))
}

fn page_of(token: &str) -> Option<usize> {
    token.strip_prefix("page+")?.split_once('/')?.0.parse().ok()
}

fn rendered(machines: &[Machine], size: usize) -> Vec<Bytes> {
    let chunks: Vec<&[Machine]> = if machines.is_empty() { vec![&[]] } else { machines.chunks(size).collect() };
    let last = chunks.len();
    chunks.iter().zip(1..).map(|(chunk, number)| page(chunk, (number < last).then_some(number))).collect()
}

fn page(machines: &[Machine], next: Option<usize>) -> Bytes {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse \
         xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>fake</requestId><reservationSet>",
    );
    for machine in machines {
        item(&mut xml, machine);
    }
    xml.push_str("</reservationSet>");
    if let Some(next) = next {
        element(&mut xml, "nextToken", &token_of(next));
    }
    xml.push_str(END);
    xml.into()
}

fn item(xml: &mut String, machine: &Machine) {
    xml.push_str("<item><reservationId>r-1</reservationId><instancesSet><item>");
    element(xml, "instanceId", &machine.id);
    let _ = write!(xml, "<instanceState><code>16</code><name>{}</name></instanceState>", machine.state);
    let optional =
        [("privateIpAddress", &machine.private_ip), ("ipAddress", &machine.public_ip), ("ipv6Address", &machine.ipv6)];
    for (name, value) in optional {
        if let Some(value) = value {
            element(xml, name, value);
        }
    }
    let _ = write!(xml, "<placement><availabilityZone>{}</availabilityZone></placement>", machine.zone);
    element(xml, "launchTime", "2026-01-02T03:04:05.000Z");
    if let Some(address) = &machine.interface_ipv6 {
        let _ = write!(
            xml,
            "<networkInterfaceSet><item><ipv6AddressesSet><item><ipv6Address>{address}</ipv6Address></item>\
             </ipv6AddressesSet></item></networkInterfaceSet>"
        );
    }
    xml.push_str("<tagSet>");
    for (key, value) in &machine.tags {
        xml.push_str("<item>");
        element(xml, "key", key);
        element(xml, "value", value);
        xml.push_str("</item>");
    }
    xml.push_str("</tagSet></item></instancesSet></item>");
}

fn element(xml: &mut String, name: &str, text: &str) {
    let _ = write!(xml, "<{name}>");
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '&' => xml.push_str("&amp;"),
            '\n' | '\r' | '\t' => {
                let _ = write!(xml, "&#{};", u32::from(c));
            }
            c => xml.push(c),
        }
    }
    let _ = write!(xml, "</{name}>");
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
