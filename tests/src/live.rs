//! The frame of a live test: a mock, the engine, traffic, and the verdict.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use agentsight::demo::{
    Folder,
    clients::Sending,
    mock::Mock,
    receiver::{KIND_CLIENT, Span},
    script::Script,
    talk::{Dialect, Talk},
    verdict,
};

use crate::{
    engine::{Engine, Finished, KIND_SERVER},
    gate::{Permit, live_or_skip},
};

/// How long spans may take to come out after the last reply.
pub const ARRIVAL_DURATION_MAX: Duration = Duration::from_secs(15);

/// What a live test works with.
pub struct Live {
    /// This test's own folder.
    pub folder: Folder,
    /// The mock that its clients speak to.
    pub mock: Mock,
    _permit: Option<Permit>,
}

impl Live {
    /// Begins a live test; none where it is skipped.
    pub fn begin() -> Option<Self> {
        let permit = live_or_skip()?;
        Some(Self { _permit: Some(permit), ..Self::unwatched() })
    }

    /// The same without an engine, which needs no privileges.
    pub fn unwatched() -> Self {
        let folder = Folder::create().expect("a folder");
        let mock = Mock::start(folder.path(), []).expect("a mock");
        Self { folder, mock, _permit: None }
    }

    /// Makes a key and a certificate of its own for localhost; where they are, as PEM files.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let (key, certificate) = (self.folder.path().join("key.pem"), self.folder.path().join("certificate.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl runs").success());
        (key, certificate)
    }

    /// Starts the engine.
    pub fn engine(&self, options: &[&str]) -> Engine {
        Engine::start(self.folder.path(), options)
    }

    /// Makes the mock serve these scripts, and a sending of each.
    pub fn sendings(&self, scripts: impl IntoIterator<Item = Script>) -> Vec<Sending> {
        let sendings: Vec<Sending> = scripts.into_iter().map(|script| Sending::of(&script)).collect();
        self.mock.add(sendings.iter().map(|sending| sending.script.clone()));
        sendings
    }

    /// Waits for the spans of `sendings`, stops the engine, and requires one right span for each,
    /// and that nothing was dropped.
    pub fn conclude(&self, engine: Engine, sendings: &[Sending]) -> Finished {
        wait_for(&engine, sendings);
        let finished = engine.stop();
        judge(&finished.spans(), sendings);
        let mut drops = finished.drops();
        // A connection of somebody else's, first met in the middle, may begin with a response.
        drops.remove("response_without_request");
        assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
        assert!(finished.status.success(), "{:?}\n{}", finished.status, finished.stderr);
        finished
    }
}

/// Waits until every sending has a span.
pub fn wait_for(engine: &Engine, sendings: &[Sending]) -> bool {
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| {
        let by_trace = by_trace(spans);
        sendings.iter().all(|sending| by_trace.contains_key(sending.trace.trace_id.as_str()))
    })
}

/// Waits for a span of each side for every one of `sendings`, stops the engine, and requires that they are right.
/// They say the same but for their kind.
pub fn conclude_both_sides(engine: Engine, sendings: &[Sending]) -> Finished {
    let of_kind = |spans: &[Span], kind: i32| -> Vec<Span> {
        let is_ours =
            |span: &&Span| sendings.iter().any(|sending| sending.trace.trace_id == span.trace_id) && span.kind == kind;
        spans.iter().filter(is_ours).cloned().collect()
    };
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| {
        [KIND_CLIENT, KIND_SERVER].iter().all(|&kind| of_kind(spans, kind).len() >= sendings.len())
    });
    let finished = engine.stop();
    let spans = finished.spans();
    judge(&of_kind(&spans, KIND_CLIENT), sendings);
    let served = of_kind(&spans, KIND_SERVER).into_iter();
    judge(&served.map(|span| Span { kind: KIND_CLIENT, ..span }).collect::<Vec<_>>(), sendings);
    assert!(finished.status.success(), "{:?}\n{}", finished.status, finished.stderr);
    finished
}

/// Requires one right span for each of `sendings`.
pub fn judge(spans: &[Span], sendings: &[Sending]) {
    let by_trace = by_trace(spans);
    let mut faults = vec![];
    for Sending { script, trace } in sendings {
        let found = match by_trace.get(trace.trace_id.as_str()).map(Vec::as_slice) {
            None => vec!["no span".to_owned()],
            Some(&[span]) => verdict::mismatches(span, &script.expected, trace),
            Some(several) => vec![format!("{} spans: {several:#?}", several.len())],
        };
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", script.id)));
    }
    assert!(faults.is_empty(), "{} faults in {} exchanges:\n{}", faults.len(), sendings.len(), faults.join("\n"));
}

fn by_trace(spans: &[Span]) -> HashMap<&str, Vec<&Span>> {
    let mut by_trace: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in spans {
        by_trace.entry(&span.trace_id).or_default().push(span);
    }
    by_trace
}

/// Plain and streamed exchanges of every API in turn, no two alike; their ids begin with `prefix`.
pub fn mixed(prefix: &str, count: i64) -> Vec<Script> {
    const DIALECTS: [Dialect; 5] =
        [Dialect::Chat, Dialect::Messages, Dialect::Responses, Dialect::Embeddings, Dialect::Completions];
    let talk = |number: i64| {
        let dialect = DIALECTS[usize::try_from(number).expect("not negative") % DIALECTS.len()];
        let talk = Talk::numbered(dialect, number);
        if dialect != Dialect::Embeddings && number % 2 == 0 { talk.streamed() } else { talk }
    };
    (0..count).map(|number| Script::new(format!("{prefix}-{number}"), "", &talk(number))).collect()
}

/// Requests that don't fit into a socket's buffer, so that a write has to be made again.
pub fn large(prefix: &str) -> Vec<Script> {
    let talk = |number: i64| Talk {
        prompt: "All work and no play. ".repeat(50_000),
        ..Talk::numbered(if number % 2 == 0 { Dialect::Chat } else { Dialect::Messages }, number)
    };
    (0..6).map(|number| Script::new(format!("{prefix}-{number}"), "", &talk(number))).collect()
}
