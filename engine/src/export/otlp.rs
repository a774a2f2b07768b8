//! OTLP/HTTP: posts batches to a collector and learns what became of them.

use std::{error::Error, io::Write, sync::Arc};

use flate2::{Compression as Level, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    Method, Request,
    body::Bytes,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::Client as HttpClient,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until, timeout_at},
};

use super::{
    answer::{self, Attempt, Trouble, shorten},
    batch::{EncodedBatch, Encoding, Outcome},
    config::{Compression, Settings},
    journal::Journal,
    retry::Backoff,
    route::Route,
    tls::{self, TlsError},
};
use crate::{
    log::Log,
    metrics::{Metrics, Total},
};

/// A connection to one collector: HTTP/2 where it offers that in TLS, else HTTP/1.1.
pub struct Client {
    http: HttpClient<HttpsConnector<Route>, Full<Bytes>>,
    /// What a proxy that makes requests for us wants to see.
    proxy_authorization: Option<HeaderValue>,
    settings: Settings,
    backoff: Backoff,
    /// When the next attempt may be made, whatever it sends: the pause after a failure, or the one
    /// that the collector asked for (`Retry-After`).
    not_before: Option<Instant>,
    metrics: Arc<Metrics>,
    log: Log,
    journal: Journal,
    /// Batches that can't be sent are kept by somebody.
    keeps: bool,
    /// The last attempt did not get through.
    failing: watch::Sender<bool>,
}

impl Client {
    /// A client that connects when there is something to send.
    pub fn new(settings: Settings, metrics: Arc<Metrics>, log: Log) -> Result<Self, TlsError> {
        let tls = tls::config(&settings)?;
        let route = Route::new(&settings.endpoint, settings.proxy.as_ref(), Arc::new(tls.clone()));
        let proxy_authorization = route.credentials(settings.proxy.as_ref());
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // An attempt that is given up ends its stream but not an HTTP/2 connection, which may be dead.
            .http2_keep_alive_interval(HTTP2_PING_EVERY)
            .http2_keep_alive_timeout(HTTP2_PONG_WITHIN)
            .build(tls::connector(tls, route));
        let backoff = Backoff::new(&settings.retry);
        Ok(Self {
            http,
            proxy_authorization,
            settings,
            backoff,
            not_before: None,
            metrics,
            log,
            journal: Journal::default(),
            keeps: false,
            failing: watch::Sender::new(false),
        })
    }

    /// The same, for batches that somebody keeps when they can't be sent.
    pub fn for_kept_batches(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Whether the last attempt failed and will be followed by another.
    pub fn failing(&self) -> watch::Receiver<bool> {
        self.failing.subscribe()
    }

    /// Sends a batch, again and again where that is allowed and until the time for it is over. The
    /// pauses between attempts grow over several calls, until one gets through.
    pub async fn send(&mut self, batch: &EncodedBatch) -> Outcome {
        let deadline = self.settings.retry.total_timeout.map(|limit| Instant::now() + limit);
        let (body, coding) = match self.settings.compression {
            Compression::None => (batch.body.clone(), Compression::None),
            Compression::Gzip => gzip(batch.body.clone()).await,
        };
        let content = Content { body, encoding: batch.encoding, coding };
        let outcome = loop {
            if let Some(not_before) = self.not_before {
                sleep_until(earlier(not_before, deadline)).await;
                if deadline.is_some_and(|deadline| not_before >= deadline) {
                    break Outcome::Later {
                        why: "the pause before the next attempt is longer than the time for this one".to_owned(),
                    };
                }
            }
            let trouble = match self.attempt(&content, deadline).await {
                Attempt::Done(outcome) => {
                    self.not_before = None;
                    self.failing.send_replace(false);
                    self.backoff.reset();
                    break outcome;
                }
                Attempt::Again { after, trouble } => {
                    let pause = match after {
                        Some(asked) => self.backoff.pause_after(asked),
                        None => self.backoff.pause(),
                    };
                    self.not_before = Some(Instant::now() + pause);
                    self.failing.send_replace(true);
                    trouble
                }
            };
            let line = self.journal.retrying(&trouble);
            self.say(line);
            if deadline.is_some_and(|deadline| self.not_before >= Some(deadline)) {
                break Outcome::Later { why: trouble.why };
            }
        };
        // What is kept is not lost, and that it fails has been said.
        if !(self.keeps && matches!(outcome, Outcome::Later { .. })) {
            let line = self.journal.done(&outcome, batch.signal.records());
            self.say(line);
        }
        outcome
    }

    fn say(&self, line: Option<String>) {
        if let Some(line) = line {
            let endpoint = &self.settings.endpoint;
            // Without the query, which may hold a key.
            let (scheme, host) = (endpoint.scheme_str().unwrap_or_default(), endpoint.authority());
            let host = host.map(|host| host.as_str()).unwrap_or_default();
            let proxy = self.settings.proxy.as_ref().map(|proxy| format!(" through {}", proxy.uri()));
            let proxy = proxy.as_deref().unwrap_or_default().trim_end_matches('/');
            self.log.warn(&format!("{line} ({scheme}://{host}{}{proxy})", endpoint.path()));
        }
    }

    async fn attempt(&self, content: &Content, deadline: Option<Instant>) -> Attempt {
        self.metrics.add(Total::ExportAttempts, 1);
        let limit = self.settings.retry.attempt_timeout.map(|limit| Instant::now() + limit);
        let limit = limit.map_or(deadline, |limit| Some(earlier(limit, deadline)));
        let began = Instant::now();
        let attempt = self.attempt_until(content, limit).await;
        self.metrics.attempt_took(began.elapsed());
        if let Attempt::Again { .. } = attempt {
            self.metrics.add(Total::ExportRetries, 1);
        }
        attempt
    }

    async fn attempt_until(&self, content: &Content, limit: Option<Instant>) -> Attempt {
        let request = self.http.request(self.request(content));
        let response = match limit {
            None => request.await,
            Some(limit) => match timeout_at(limit, request).await {
                Ok(response) => response,
                Err(_elapsed) => return Attempt::again("it did not answer in time".to_owned()),
            },
        };
        match response {
            Ok(response) => answer::read(response, limit).await,
            Err(error) => {
                let remedy = tls::error_in(&error).and_then(tls::remedy);
                Attempt::Again { after: None, trouble: Trouble { why: chain(&error), remedy } }
            }
        }
    }

    fn request(&self, content: &Content) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(content.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        let headers = request.headers_mut();
        for (name, value) in &self.settings.headers.0 {
            headers.append(name, value.clone());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.encoding.media_type()));
        headers.entry(USER_AGENT).or_insert(OUR_NAME);
        if content.coding == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(credentials) = &self.proxy_authorization {
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        request
    }
}

/// How often to ask for a sign of life while a request waits on HTTP/2, and how long to wait for it.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(4);
const HTTP2_PONG_WITHIN: Duration = Duration::from_secs(4);

/// What is sent, the same at each attempt.
struct Content {
    body: Bytes,
    encoding: Encoding,
    coding: Compression,
}

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
