//! The way from records to an export request, on one thread.

use std::sync::Arc;

use agentsight::{
    exchange::Exchange,
    export::{limit::AttributeLimits, span},
    flow::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm},
    genai,
    metrics::Metrics,
    ring::Record,
    sys::clock::UnixOffset,
};
use agentsight_abi::Kind;
use agentsight_otlp::{AnyValue, Appended, Envelope, Request, Scope, request::SizeLimits};
use bumpalo::Bump;

use crate::{
    dialect::{INPUT_TOKENS, OUTPUT_TOKENS},
    workload::Workload,
};

const RESOURCE: [(&str, AnyValue<'_>); 3] = [
    ("service.name", AnyValue::Str("agentsight")),
    ("host.name", AnyValue::Str("gateway-7")),
    ("os.type", AnyValue::Str("linux")),
];
const LIMITS: SizeLimits = SizeLimits { target_bytes: 4 << 20, bytes_max: 64 << 20 };
/// Spans of one request: the batch size of the SDKs.
const SPANS: usize = 512;

/// How far an exchange goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// It is finished, and that is all.
    Exchange,
    /// It is encoded as a span of an export request.
    Otlp,
}

/// Finished exchanges, kept.
#[derive(Default)]
pub struct Gathered(pub Vec<Exchange>);

impl Outlet for Gathered {
    fn finished(&mut self, exchange: Exchange) {
        self.0.push(exchange);
    }

    fn ignore(&mut self, _: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        None
    }
}

/// Takes finished exchanges and gives their arenas back.
struct Sink {
    to: To,
    envelope: Envelope,
    request: Option<Request>,
    name: String,
    finished: usize,
    right: usize,
    otlp_bytes: usize,
    #[expect(clippy::vec_box, reason = "exchanges give and take boxes")]
    arenas: Vec<Box<Bump>>,
}

impl Sink {
    fn finish_request(&mut self) {
        let Some(request) = self.request.take() else { return };
        let body = request.finish(&self.envelope);
        self.otlp_bytes += body.as_ref().len();
        self.request = Some(Request::new(&self.envelope, LIMITS, body.into_buffer()));
    }
}

impl Outlet for Sink {
    fn finished(&mut self, exchange: Exchange) {
        self.finished += 1;
        let is_right = exchange
            .call
            .with(|call| call.input_tokens == Some(INPUT_TOKENS) && call.output_tokens == Some(OUTPUT_TOKENS));
        self.right += usize::from(is_right && !exchange.incomplete);
        if self.to == To::Otlp
            && let Some(request) = &mut self.request
        {
            assert_eq!(span::append(&exchange, &AttributeLimits::default(), &mut self.name, request), Appended::Yes);
            if request.records() == SPANS {
                self.finish_request();
            }
        }
        self.arenas.push(exchange.call.into_arena());
    }

    fn ignore(&mut self, _: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        self.arenas.pop()
    }
}

/// A pipeline that takes a workload again and again, on the same connections.
pub struct Through {
    pipeline: Pipeline,
    sink: Sink,
    passes: u64,
}

impl Through {
    /// One that has seen nothing.
    pub fn new(to: To) -> Self {
        let settings = Settings {
            roles: Roles::Client,
            call: genai::Options::default(),
            idle_ns: u64::MAX,
            clock: UnixOffset(1_700_000_000_000_000_000),
            ids: IdSource::fixed(1),
            describe: describe_by_comm,
            worker: 0,
        };
        let envelope = Envelope::new(&RESOURCE[..], Scope { name: "agentsight", version: "" }, "");
        let request = Some(Request::new(&envelope, LIMITS, Vec::new()));
        let sink = Sink {
            to,
            envelope,
            request,
            name: String::new(),
            finished: 0,
            right: 0,
            otlp_bytes: 0,
            arenas: Vec::new(),
        };
        Self { pipeline: Pipeline::new(settings, Arc::new(Metrics::default())), sink, passes: 0 }
    }

    /// Takes all records of `workload`, always the same one, and gives the bytes of the requests.
    ///
    /// # Panics
    /// When an exchange doesn't come out, or isn't right.
    pub fn run(&mut self, workload: &Workload) -> usize {
        (self.sink.finished, self.sink.right, self.sink.otlp_bytes) = (0, 0, 0);
        pass(&mut self.pipeline, workload, self.passes, &mut self.sink);
        self.passes += 1;
        self.sink.finish_request();
        assert_eq!(self.sink.finished, workload.exchanges);
        assert!(self.sink.right == workload.exchanges || workload.is_foreign);
        self.sink.otlp_bytes
    }

    /// The same, with the finished exchanges in `gathered`.
    pub fn gather(&mut self, workload: &Workload, mut gathered: Gathered) -> Gathered {
        pass(&mut self.pipeline, workload, self.passes, &mut gathered);
        self.passes += 1;
        gathered
    }
}

/// Takes all records, which continue those of `passes` earlier passes.
fn pass(pipeline: &mut Pipeline, workload: &Workload, passes: u64, outlet: &mut impl Outlet) {
    for recorded in &workload.records {
        let mut header = recorded.header;
        if header.kind == Kind::Data as u8 {
            header.offset += passes * workload.transferred(&header);
        } else if passes > 0 {
            continue;
        }
        pipeline.record(&Record { header, payload: &recorded.payload }, outlet);
    }
}
