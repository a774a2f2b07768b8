//! The engine in a pid namespace of its own, as in a container that doesn't share the host's.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use agentsight::demo::{clients::Sending, mock::Mock, receiver::Span};
use agentsight_tests::{
    engine::{Engine, Finished},
    live::{Live, judge, mixed},
    prepared::{plan, run},
    program::root,
};

/// Becomes the program behind it, as the first process of a pid namespace with a /proc of its own.
const INSIDE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

struct Scene {
    live: Live,
    wanted: Vec<Sending>,
    go: PathBuf,
    /// What a shell does to send what is wanted as soon as `go` is there.
    script: String,
}

impl Scene {
    fn new() -> Option<Self> {
        let mut live = Live::begin()?;
        live.mock = Mock::start_plain([]).expect("a mock");
        let wanted = live.sendings(mixed("inside", 6));
        let folder = live.folder.path();
        let (go, told) = (folder.join("go"), folder.join("plan"));
        fs::write(&told, plan(&live, "calls", &wanted).to_string()).expect("a plan");
        let client = root().join("tests/clients/plain.py");
        let [go_text, client, told] = [&go, &client, &told].map(|path| path.display());
        let script = format!("until [ -e {go_text} ]; do sleep 0.05; done; exec python3 {client} < {told} > /dev/null");
        Some(Self { live, wanted, go, script })
    }

    /// Calls from outside and then from inside; only the latter give spans, with the numbers that
    /// processes have inside.
    fn check(self, mut engine: Engine, end: impl FnOnce(&Engine)) {
        engine.wait_until_ready();
        let outside = self.live.sendings(mixed("outside", 6));
        run(&["python3"], "plain.py", &plan(&self.live, "calls", &outside));
        fs::write(&self.go, "").expect("a file");
        let all = |spans: &[Span]| spans.len() >= self.wanted.len();
        engine.wait_for_spans(Duration::from_secs(15), all);
        end(&engine);
        let finished: Finished = engine.wait();
        let spans = finished.spans();
        judge(&spans, &self.wanted);
        assert_eq!(spans.len(), self.wanted.len(), "spans of others: {spans:#?}");
        for span in spans {
            let number = span.attributes["process.pid"].as_u64().expect("a number");
            let name = span.attributes["process.executable.name"].as_str().expect("a name");
            assert!(number < 100 && name.starts_with("python3"), "{number} {name}\n{}", finished.stderr);
        }
    }
}

#[test]
fn a_command_and_its_children() {
    let Some(scene) = Scene::new() else { return };
    // The shell that waits is a child of the command.
    let script = format!("({}) & wait", scene.script);
    let engine = Engine::spawn_by(scene.live.folder.path(), &INSIDE, &["trace", "--json", "--", "sh", "-c", &script]);
    scene.check(engine, |_| ());
}

#[test]
fn a_process_by_its_number() {
    let Some(scene) = Scene::new() else { return };
    let script = format!("({}) & exec \"$@\" --pid $!", scene.script);
    let launcher = [&INSIDE[..], &["sh", "-c", &script, "sh"]].concat();
    let engine = Engine::spawn_by(scene.live.folder.path(), &launcher, &["trace", "--json"]);
    // What has started it waits for it and passes no signal on.
    scene.check(engine, |engine| {
        let told = Command::new("pkill").args(["-INT", "-P", &engine.pid().to_string()]).status();
        assert!(told.expect("pkill runs").success());
    });
}
