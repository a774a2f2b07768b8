//! Processes in cgroups and namespaces of their own, as containers are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use agentsight::demo::{clients::Sending, mock::Mock};
use agentsight_tests::{
    engine::{Engine, Finished},
    live::{Live, mixed},
    prepared::{conclude, plan, run},
};
use serde_json::{Value, json};

/// A made cgroup, and files of a runtime; gone when dropped.
struct Container {
    id: String,
    cgroup: PathBuf,
    made: Vec<PathBuf>,
}

impl Container {
    /// A cgroup whose path below the hierarchy's root is made of this test's folder and `path`, in which
    /// `ID` stands for the container's id.
    fn new(live: &Live, path: &str) -> Self {
        let name = live.folder.path().file_name().expect("a name").to_str().expect("text");
        let id = format!("{:064x}", name.bytes().fold(7_u128, |id, byte| id.wrapping_mul(257) + u128::from(byte)));
        let base = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].into_iter().find(|base| Path::new(base).exists());
        let cgroup = Path::new(base.expect("a cgroup hierarchy")).join(name).join(path.replace("ID", &id));
        fs::create_dir_all(&cgroup).expect("a cgroup");
        Self { id, cgroup, made: vec![] }
    }

    /// Writes a runtime's state file.
    fn state(&mut self, path: &str, content: &str) {
        let path = PathBuf::from(path.replace("ID", &self.id));
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).expect("a folder for state");
        self.made.push(folder.to_owned());
        fs::write(path, content).expect("a state file");
    }

    /// Runs the client in the cgroup.
    fn run(&self, live: &Live, sendings: &[Sending]) {
        let enter = format!("echo $$ > {}/cgroup.procs && exec python3 \"$@\"", self.cgroup.display());
        run(&["sh", "-c", &enter, "sh"], "plain.py", &plan(live, "calls", sendings));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What is left over is empty.
        for folder in &self.made {
            let _ = fs::remove_dir_all(folder);
        }
        for folder in self.cgroup.ancestors().take_while(|folder| folder.components().count() > 4) {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Calls from the container and from outside of it; only the former give spans.
fn check(path: &str, prepare: impl FnOnce(&mut Container) -> Vec<String>) -> Option<(Container, Finished)> {
    let mut live = Live::begin()?;
    live.mock = Mock::start_plain([]).expect("a mock");
    let mut container = Container::new(&live, path);
    let options = prepare(&mut container);
    let engine: Engine = live.engine(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let unwanted = live.sendings(mixed("outside", 6));
    run(&["python3"], "plain.py", &plan(&live, "calls", &unwanted));
    let wanted = live.sendings(mixed("inside", 6));
    container.run(&live, &wanted);
    let finished = conclude(engine, &wanted);
    assert_eq!(finished.spans().len(), 6, "spans of others\n{}", finished.stderr);
    Some((container, finished))
}

/// Requires these values on every span.
fn have(finished: &Finished, expected: &[(&str, Value)]) {
    for span in finished.spans() {
        for (name, value) in expected {
            assert_eq!(span.attributes.get(*name), Some(value), "{name}");
        }
    }
}

#[test]
fn by_cgroup() {
    check("group", |container| vec!["--cgroup".into(), container.cgroup.display().to_string()]);
}

#[test]
fn by_container_id() {
    let found = check("docker-ID.scope", |container| vec!["--container".into(), container.id.clone()]);
    let Some((container, finished)) = found else { return };
    have(&finished, &[("container.id", json!(container.id))]);
}

#[test]
fn by_container_name() {
    let found = check("docker/ID", |container| {
        container.state("/var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/agentsight-test","Config":{}}"#);
        vec!["--container".into(), "agentsight-test".into()]
    });
    let Some((container, finished)) = found else { return };
    have(&finished, &[("container.id", json!(container.id)), ("container.name", json!("agentsight-test"))]);
}

#[test]
fn by_pod() {
    const UID: &str = "5d1c7a00-aaaa-bbbb-cccc-0123456789ab";
    let path = "kubepods.slice/kubepods-pod5d1c7a00_aaaa_bbbb_cccc_0123456789ab.slice/cri-containerd-ID.scope";
    let found = check(path, |container| {
        container.state(&format!("/var/log/pods/llm-test_gw-0_{UID}/keep"), "");
        container.state(
            "/run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
            r#"{"annotations":{"io.kubernetes.cri.container-name":"gateway"}}"#,
        );
        vec!["--pod".into(), "llm-test/gw-0".into()]
    });
    let Some((container, finished)) = found else { return };
    have(
        &finished,
        &[
            ("container.id", json!(container.id)),
            ("k8s.pod.uid", json!(UID)),
            ("k8s.pod.name", json!("gw-0")),
            ("k8s.namespace.name", json!("llm-test")),
            ("k8s.container.name", json!("gateway")),
        ],
    );
}

/// Where the dynamic linker finds libssl.
fn libssl() -> PathBuf {
    let output = Command::new("sh").args(["-c", "ldconfig -p | awk '/libssl.so.3 /{print $NF; exit}'"]).output();
    PathBuf::from(String::from_utf8(output.expect("ldconfig runs").stdout).expect("a path").trim())
}

/// TLS inside the process, through a copy of libssl that nothing has mapped before; `enter` brings the
/// process where it is to run, with the copy in `$LD_LIBRARY_PATH`.
fn with_own_library(name: &str, enter: &str, delay: f64) {
    let Some(live) = Live::begin() else { return };
    let (key, certificate) = live.certificate();
    let sendings = live.sendings(mixed(name, 8));
    let mut plan = plan(&live, "", &sendings);
    plan["key"] = json!(key);
    plan["certificate"] = json!(certificate);
    plan["delay"] = json!(delay);
    let copies = live.folder.path().join("lib");
    fs::create_dir(&copies).expect("a folder");
    let engine = live.engine(&[]);
    let script =
        enter.replace("COPIES", &copies.display().to_string()).replace("LIBSSL", &libssl().display().to_string());
    run(&["sh", "-c", &script, "sh"], "tls_pair.py", &plan);
    conclude(engine, &sendings);
}

#[test]
fn in_namespaces_of_its_own() {
    with_own_library(
        "namespaces",
        "exec unshare --mount --pid --net --fork --mount-proc sh -c 'mount -t tmpfs none COPIES && \
         cp -L LIBSSL COPIES/ && ip link set lo up && LD_LIBRARY_PATH=COPIES exec python3 \"$@\"' sh \"$@\"",
        0.0,
    );
}

#[test]
fn a_library_that_is_loaded_late() {
    with_own_library("late", "cp -L LIBSSL COPIES/ && LD_LIBRARY_PATH=COPIES exec python3 \"$@\"", 3.0);
}
