//! Which container a process is in: its id from the cgroup's path, its names from what the runtimes
//! and the kubelet leave in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A state file of a runtime is not read beyond this.
const STATE_BYTES_MAX: u64 = 4 << 20;

/// A container, as its processes' cgroup shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The Kubernetes pod's uid.
    pub pod_uid: Option<String>,
}

/// What a container and its pod are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The container's name in its runtime, or in its pod.
    pub container: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
}

/// The container of process `pid`.
pub fn of(pid: u32) -> Option<Container> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|text| from_cgroups(&text))
}

/// The path of a process's cgroup in the v2 hierarchy, below the root of that (cgroups(7)).
pub fn cgroup_path(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Reads /proc/PID/cgroup. The innermost container counts, for containers inside containers.
pub fn from_cgroups(text: &str) -> Option<Container> {
    // The v2 hierarchy is the last line.
    text.lines().rev().find_map(|line| from_path(line.splitn(3, ':').nth(2)?))
}

/// Reads a cgroup's path, as Docker, containerd, CRI-O and Podman make them with either cgroup driver.
pub fn from_path(path: &str) -> Option<Container> {
    let id = path.rsplit('/').find_map(container_id)?;
    let pod_uid = path.rsplit('/').find_map(pod_uid);
    Some(Container { id: id.to_owned(), pod_uid })
}

/// 64 hexadecimal digits with a prefix such as `docker-` or `cri-containerd-`, and the suffix `.scope`
/// where systemd manages cgroups. What watches a container (conmon) is not in it.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = part.rsplit_once(['-', ':']).unwrap_or(("", part));
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && !prefix.ends_with("conmon")).then_some(id)
}

/// `pod<uid>`, or `kubepods-<class>-pod<uid>.slice` with underscores where the uid has dashes.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").filter(|(before, _)| before.starts_with("kubepods"))?.1,
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

impl Container {
    /// What it is called, by the state files below `root` (`/` but in tests). What isn't found is absent.
    pub fn names(&self, root: &Path) -> Names {
        [Self::of_kubelet, Self::of_docker, Self::of_oci, Self::of_podman].iter().fold(
            Names::default(),
            |names, find| {
                if names.container.is_some() && (names.pod.is_some() || self.pod_uid.is_none()) {
                    return names;
                }
                let more = find(self, root).unwrap_or_default();
                Names {
                    container: names.container.or(more.container),
                    pod: names.pod.or(more.pod),
                    namespace: names.namespace.or(more.namespace),
                }
            },
        )
    }

    /// /var/log/pods/NAMESPACE_POD_UID, and /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log.
    fn of_kubelet(&self, root: &Path) -> Option<Names> {
        let uid = self.pod_uid.as_ref()?;
        let entries = |folder: &str| fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let by_uid = entries("var/log/pods").find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (namespace, pod) = name.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
            Some((namespace.to_owned(), pod.to_owned()))
        });
        let suffix = format!("-{}.log", self.id);
        let container = entries("var/log/containers").find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(&suffix)?.rsplit_once('_')?.1.to_owned())
        });
        let (namespace, pod) = by_uid.unzip();
        Some(Names { container, pod, namespace })
    }

    /// Docker's config.v2.json, in which names begin with a slash.
    fn of_docker(&self, root: &Path) -> Option<Names> {
        let state = json(&root.join("var/lib/docker/containers").join(&self.id).join("config.v2.json"))?;
        let name = state["Name"].as_str()?.trim_start_matches('/');
        let labels = &state["Config"]["Labels"];
        let kubernetes = annotated(labels, KUBELET);
        Some(Names { container: kubernetes.container.or_else(|| some(name)), ..kubernetes })
    }

    /// The OCI runtime's config.json, where containerd, nerdctl and CRI-O annotate names.
    fn of_oci(&self, root: &Path) -> Option<Names> {
        let tasks = root.join("run/containerd/io.containerd.runtime.v2.task");
        let by_containerd = fs::read_dir(&tasks).into_iter().flatten().flatten();
        let by_containerd = by_containerd.map(|namespace| namespace.path().join(&self.id).join("config.json"));
        let by_storage = root.join("run/containers/storage/overlay-containers").join(&self.id);
        let paths: Vec<PathBuf> = by_containerd.chain([by_storage.join("userdata/config.json")]).collect();
        let state = paths.iter().find_map(|path| json(path))?;
        let annotations = &state["annotations"];
        Some([CRI, KUBELET, NERDCTL].iter().fold(Names::default(), |names, keys| {
            let more = annotated(annotations, *keys);
            Names {
                container: names.container.or(more.container),
                pod: names.pod.or(more.pod),
                namespace: names.namespace.or(more.namespace),
            }
        }))
    }

    /// Podman's list of containers.
    fn of_podman(&self, root: &Path) -> Option<Names> {
        let list = json(&root.join("var/lib/containers/storage/overlay-containers/containers.json"))?;
        let own = list.as_array()?.iter().find(|entry| entry["id"] == self.id.as_str())?;
        Some(Names { container: some(own["names"].as_array()?.first()?.as_str()?), ..Names::default() })
    }
}

/// Keys of a container's name, its pod's, and the namespace's.
type Keys = [&'static str; 3];
const CRI: Keys =
    ["io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"];
const KUBELET: Keys = ["io.kubernetes.container.name", "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"];
const NERDCTL: Keys = ["nerdctl/name", "", ""];

fn annotated(from: &Value, [container, pod, namespace]: Keys) -> Names {
    let text = |key: &str| from[key].as_str().and_then(some);
    Names { container: text(container), pod: text(pod), namespace: text(namespace) }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn json(path: &Path) -> Option<Value> {
    let file = fs::File::open(path).ok()?;
    (file.metadata().ok()?.len() <= STATE_BYTES_MAX)
        .then(|| serde_json::from_reader(std::io::BufReader::new(file)))?
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn containers_are_found_in_cgroup_paths() {
        let (a, b) = (id('a'), id('b'));
        let uid = "0f5e1c7a-1111-2222-3333-444455556666";
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        for (text, container, pod) in [
            (format!("0::/system.slice/docker-{a}.scope"), Some(&a), None),
            (format!("12:pids:/docker/{a}\n0::/\n"), Some(&a), None),
            (
                format!("0::/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{a}.scope\n"),
                Some(&a),
                Some(uid),
            ),
            (format!("0::/kubepods.slice/{slice}/crio-{a}.scope/container"), Some(&a), Some(uid)),
            (format!("0::/kubepods/besteffort/pod{uid}/{a}"), Some(&a), Some(uid)),
            (format!("0::/machine.slice/libpod-{a}.scope/container"), Some(&a), None),
            (format!("0::/machine.slice/libpod-conmon-{a}.scope"), None, None),
            (format!("0::/docker/{a}/kubelet/kubepods/pod{uid}/{b}"), Some(&b), Some(uid)),
            (format!("1:name=systemd:/system.slice/x:cri-containerd:{a}"), Some(&a), None),
            ("0::/user.slice/user-1000.slice/session-3.scope".to_owned(), None, None),
            ("0::/".to_owned(), None, None),
            (String::new(), None, None),
        ] {
            let found = from_cgroups(&text);
            assert_eq!(found.as_ref().map(|found| &found.id), container, "{text}");
            assert_eq!(found.and_then(|found| found.pod_uid).as_deref(), pod, "{text}");
        }
    }

    /// The names that are found when the file at `path` holds `content`.
    fn check(pod_uid: Option<&str>, files: &[(&str, String)], expected: [Option<&str>; 3]) {
        let root = std::env::temp_dir().join(format!("agentsight-names-{}-{}", std::process::id(), files[0].0.len()));
        for (path, content) in files {
            let path = root.join(path.replace("ID", &id('a')));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let container = Container { id: id('a'), pod_uid: pod_uid.map(str::to_owned) };
        let names = container.names(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(
            [names.container.as_deref(), names.pod.as_deref(), names.namespace.as_deref()],
            expected,
            "{files:?}"
        );
    }

    #[test]
    fn names_come_from_state_files() {
        let uid = "0f5e1c7a-1111-2222-3333-444455556666";
        check(
            None,
            &[("var/lib/docker/containers/ID/config.v2.json", r#"{"Name":"/ollama","Config":{"Labels":{}}}"#.into())],
            [Some("ollama"), None, None],
        );
        check(
            None,
            &[(
                "run/containerd/io.containerd.runtime.v2.task/default/ID/config.json",
                r#"{"annotations":{"nerdctl/name":"vllm"}}"#.into(),
            )],
            [Some("vllm"), None, None],
        );
        check(
            Some(uid),
            &[("run/containerd/io.containerd.runtime.v2.task/k8s.io/ID/config.json",
                r#"{"annotations":{"io.kubernetes.cri.container-name":"gateway","io.kubernetes.cri.sandbox-name":"gw-0","io.kubernetes.cri.sandbox-namespace":"llm"}}"#.into())],
            [Some("gateway"), Some("gw-0"), Some("llm")],
        );
        check(
            Some(uid),
            &[("run/containers/storage/overlay-containers/ID/userdata/config.json",
                r#"{"annotations":{"io.kubernetes.container.name":"c","io.kubernetes.pod.name":"p","io.kubernetes.pod.namespace":"n"}}"#.into())],
            [Some("c"), Some("p"), Some("n")],
        );
        check(
            None,
            &[(
                "var/lib/containers/storage/overlay-containers/containers.json",
                format!(r#"[{{"id":"other"}},{{"id":"{}","names":["web"]}}]"#, id('a')),
            )],
            [Some("web"), None, None],
        );
        check(
            Some(uid),
            &[
                (&format!("var/log/pods/llm_gw-0_{uid}/keep"), String::new()),
                ("var/log/containers/gw-0_llm_gateway-ID.log", String::new()),
            ],
            [Some("gateway"), Some("gw-0"), Some("llm")],
        );
        check(None, &[("var/lib/docker/containers/ID/config.v2.json", "{".into())], [None, None, None]);
    }
}
