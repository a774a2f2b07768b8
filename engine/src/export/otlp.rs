//! OTLP/HTTP: posts requests to a collector and learns what became of them.

use std::{error::Error, io::Write, sync::Arc, time::SystemTime};

use agentsight_otlp::response::{decode_export_response, decode_status};
use flate2::{Compression as Level, write::GzEncoder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use super::{
    batch::{EncodedBatch, Outcome},
    config::{Compression, Settings},
    retry::{Backoff, is_retryable, retry_after},
    tls::{self, TlsError},
};
use crate::{
    limits,
    metrics::{Metrics, Total},
};

/// Receives what a person should read.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// A connection to one collector.
pub struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: Settings,
    backoff: Backoff,
    /// When the next attempt may be made, whatever it sends: the pause after a failure, or the one
    /// that the collector asked for (`Retry-After`).
    not_before: Option<Instant>,
    metrics: Arc<Metrics>,
    log: Log,
    trouble: Trouble,
}

/// What one attempt came to.
enum Attempt {
    Done(Outcome),
    Again { after: Option<Duration>, why: String },
}

impl Client {
    /// A client that connects when there is something to send.
    pub fn new(settings: Settings, metrics: Arc<Metrics>, log: Log) -> Result<Self, TlsError> {
        let connector = tls::connector(&settings)?;
        let http = HttpClient::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        let backoff = Backoff::new(&settings.retry);
        Ok(Self { http, settings, backoff, not_before: None, metrics, log, trouble: Trouble::default() })
    }

    /// Sends a batch, again and again where that is allowed and until the time for it is over. The
    /// pauses between attempts grow over several calls, until one gets through.
    pub async fn send(&mut self, batch: &EncodedBatch) -> Outcome {
        let deadline = self.settings.retry.total_timeout.map(|limit| Instant::now() + limit);
        let (body, coding) = match self.settings.compression {
            Compression::None => (batch.body.clone(), Compression::None),
            Compression::Gzip => gzip(batch.body.clone()).await,
        };
        let outcome = loop {
            if let Some(not_before) = self.not_before {
                sleep_until(earlier(not_before, deadline)).await;
                if deadline.is_some_and(|deadline| not_before >= deadline) {
                    break Outcome::Later { why: "it asked for a longer pause".to_owned() };
                }
            }
            let why = match self.attempt_in_time(body.clone(), coding, deadline).await {
                Attempt::Done(outcome) => {
                    self.not_before = None;
                    self.backoff.reset();
                    break outcome;
                }
                Attempt::Again { after, why } => {
                    let pause = after.unwrap_or_else(|| self.backoff.pause());
                    self.not_before = Some(Instant::now() + pause);
                    why
                }
            };
            if deadline.is_some_and(|deadline| self.not_before >= Some(deadline)) {
                break Outcome::Later { why };
            }
            let line = self.trouble.retrying(&why);
            self.say(line);
        };
        let line = self.trouble.done(&outcome, batch.signal.records());
        self.say(line);
        outcome
    }

    fn say(&self, line: Option<String>) {
        if let Some(line) = line {
            let endpoint = &self.settings.endpoint;
            // Without the query, which may hold a key.
            let (scheme, host) = (endpoint.scheme_str().unwrap_or_default(), endpoint.authority());
            let host = host.map(|host| host.as_str()).unwrap_or_default();
            (self.log)(&format!("{line} ({scheme}://{host}{})", endpoint.path()));
        }
    }

    async fn attempt_in_time(&self, body: Bytes, coding: Compression, deadline: Option<Instant>) -> Attempt {
        self.metrics.add(Total::ExportAttempts, 1);
        let limit = self.settings.retry.attempt_timeout.map(|limit| Instant::now() + limit);
        let attempt = self.attempt(body, coding);
        match limit.map_or(deadline, |limit| Some(earlier(limit, deadline))) {
            None => attempt.await,
            Some(limit) => timeout_at(limit, attempt)
                .await
                .unwrap_or_else(|_| Attempt::Again { after: None, why: "it did not answer in time".to_owned() }),
        }
    }

    async fn attempt(&self, body: Bytes, coding: Compression) -> Attempt {
        match self.http.request(self.request(body, coding)).await {
            Ok(response) => read(response).await,
            Err(error) => Attempt::Again { after: None, why: chain(&error) },
        }
    }

    fn request(&self, body: Bytes, coding: Compression) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        let headers = request.headers_mut();
        for (name, value) in &self.settings.headers.0 {
            headers.append(name, value.clone());
        }
        // What describes the body is not for the configuration to change.
        headers.insert(CONTENT_TYPE, PROTOBUF);
        headers.entry(USER_AGENT).or_insert(OUR_NAME);
        headers.remove(CONTENT_ENCODING);
        if coding == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!(
    "agentsight/",
    env!("CARGO_PKG_VERSION"),
    " OTel-OTLP-Exporter-Rust/",
    env!("CARGO_PKG_VERSION")
));

fn earlier(instant: Instant, deadline: Option<Instant>) -> Instant {
    deadline.map_or(instant, |deadline| instant.min(deadline))
}

/// Compresses on another thread: megabytes take longer than the encoder should pause.
async fn gzip(body: Bytes) -> (Bytes, Compression) {
    let plain = body.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Level::fast());
        encoder.write_all(&plain)?;
        encoder.finish()
    });
    match packed.await {
        Ok(Ok(packed)) => (packed.into(), Compression::Gzip),
        // There was no thread to be had; servers have to take it uncompressed too.
        _ => (body, Compression::None),
    }
}

/// Tells from a response what became of the request.
async fn read(response: Response<Incoming>) -> Attempt {
    let (head, body) = response.into_parts();
    let again = is_retryable(head.status.as_u16());
    let body = Limited::new(body, limits::EXPORT_RESPONSE_BYTES_MAX).collect().await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Attempt::Done(Outcome::Refused { why: format!("its response ({}) is too long", head.status) });
        }
        // The status says it all; what could not be read would only have explained it.
        Err(_) => Bytes::new(),
    };
    if head.status.is_success() {
        return Attempt::Done(accepted(&head.headers, &body));
    }
    let why = refusal(head.status, &head.headers, &body);
    if !again {
        return Attempt::Done(Outcome::Refused { why });
    }
    let after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Attempt::Again { after: after.and_then(|value| retry_after(value, SystemTime::now())), why }
}

fn accepted(headers: &HeaderMap, body: &[u8]) -> Outcome {
    let partial = is_protobuf(headers).then(|| decode_export_response(body).ok()?.partial_success).flatten();
    let partial = partial.unwrap_or_default();
    Outcome::Delivered { rejected: partial.rejected.try_into().unwrap_or(0), message: shorten(&partial.error_message) }
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
    let message = if is_protobuf(headers) {
        decode_status(body).map(|status| status.message).unwrap_or_default()
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    let message = shorten(&message);
    if message.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {message}") }
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-protobuf")
}

/// A stranger's words for our log: one line of moderate length without control characters.
fn shorten(message: &str) -> String {
    const CHARS_MAX: usize = 300;
    let line = message.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    line.take(CHARS_MAX).collect()
}

/// An error and what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    shorten(&text)
}

/// Keeps the log short: a collector that is down for an hour is two lines.
#[derive(Default)]
struct Trouble {
    /// Why requests are not getting through, as it was last reported.
    failing: Option<String>,
    /// What the collector last said about records that it rejected.
    rejecting: Option<String>,
}

impl Trouble {
    /// The line to log about a failed attempt that will be followed by another.
    fn retrying(&mut self, why: &str) -> Option<String> {
        if self.failing.is_some() {
            return None;
        }
        self.failing = Some("retrying".to_owned());
        Some(format!("export fails, trying again: {why}"))
    }

    /// The line to log about the end of a request.
    fn done(&mut self, outcome: &Outcome, what: &str) -> Option<String> {
        match outcome {
            // The specification lets servers send an empty partial success for a full one.
            Outcome::Delivered { rejected: 0, message } if message.is_empty() => {
                self.failing.take().map(|_| "export works again".to_owned())
            }
            Outcome::Delivered { rejected: 0, message } => changed(&mut self.rejecting, message)
                .then(|| format!("the collector accepts {what} but warns: {message}")),
            Outcome::Delivered { rejected, message } => changed(&mut self.rejecting, message)
                .then(|| format!("the collector rejected {rejected} {what} of a request: {message}")),
            Outcome::Refused { why } => changed(&mut self.failing, why)
                .then(|| format!("the collector refuses the {what}, which are dropped: {why}")),
            Outcome::Later { why } => changed(&mut self.failing, "gave up")
                .then(|| format!("export keeps failing, {what} are dropped: {why}")),
        }
    }
}

/// Remembers `what` and tells whether it is new.
fn changed(known: &mut Option<String>, what: &str) -> bool {
    let new = known.as_deref() != Some(what);
    if new {
        *known = Some(what.to_owned());
    }
    new
}
