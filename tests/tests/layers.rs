//! The layers of the engine: imports go downward only, the pure modules touch nothing outside of
//! memory, and `unsafe` stays where it is reviewed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use agentsight_tests::program::root;

/// The engine's modules from the ground up, and of which others each may know.
const LAYERS: &[(&str, &[&str])] = &[
    ("arena", &[]),
    ("limits", &[]),
    ("simd", &[]),
    ("log", &[]),
    ("semconv", &[]),
    ("metrics", &["limits"]),
    ("telemetry", &["metrics", "limits"]),
    ("intervals", &[]),
    ("network", &[]),
    ("exchange", &["arena", "semconv", "intervals", "network"]),
    ("handoff", &["exchange"]),
    ("wire", &["limits"]),
    ("genai", &["wire", "exchange", "arena", "limits", "simd"]),
    ("sys", &["exchange"]),
    ("ring", &["sys"]),
    ("spool", &["sys", "metrics", "limits", "log"]),
    // Of the ring it knows the record, of the system the offset between two clocks.
    ("flow", &["genai", "wire", "exchange", "network", "arena", "intervals", "metrics", "limits", "ring", "sys"]),
    ("kernel", &["ring", "sys"]),
    ("output", &["exchange", "metrics", "limits"]),
    (
        "export",
        &["output", "exchange", "handoff", "intervals", "metrics", "telemetry", "spool", "semconv", "limits", "log"],
    ),
    ("recording", &["flow", "ring", "sys"]),
    ("worker", &["flow", "recording", "kernel", "ring", "exchange", "handoff", "metrics", "sys", "limits", "log"]),
    ("capture", &["worker", "kernel", "ring", "metrics", "sys", "log"]),
    // What serves and judges the demo's traffic shares no code with what is judged.
    ("demo", &[]),
    (
        "cli",
        &[
            "demo",
            "capture",
            "recording",
            "worker",
            "flow",
            "genai",
            "kernel",
            "export",
            "spool",
            "output",
            "metrics",
            "telemetry",
            "limits",
            "log",
            "sys",
        ],
    ),
];

/// What the parsers must not reach: files, sockets, clocks, threads, the kernel, protobuf.
const PURE: &[&str] = &["wire", "genai"];
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::io",
    "std::time",
    "std::thread",
    "std::process",
    "std::os",
    "std::env",
    "libc::",
    "aya::",
    "io_uring::",
    "tokio::",
    "hyper::",
    "prost::",
    "agentsight_otlp",
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["arena", "ring", "simd", "sys", "kernel"];

/// A source file of the engine, without its tests and comments.
struct Source {
    path: PathBuf,
    module: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let engine = root().join("engine/src");
    let mut found = vec![];
    let mut folders = vec![engine.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
                let first = path.strip_prefix(&engine).unwrap().components().next().unwrap();
                let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
                let code = without_tests_and_comments(&fs::read_to_string(&path).unwrap());
                found.push(Source { path, module, code });
            }
        }
    }
    assert!(found.len() > 20, "the engine's sources were not found");
    found
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
}

/// What is compiled for tests only ends with a bracket or a semicolon that is not indented further.
fn without_tests_and_comments(text: &str) -> String {
    let mut code = String::new();
    let mut in_tests = false;
    for line in text.lines() {
        in_tests |= line == "#[cfg(test)]";
        if in_tests {
            in_tests = !(line == "}" || line.ends_with(';') && !line.starts_with(' '));
        } else {
            code.push_str(line.split("//").next().unwrap_or_default());
            code.push('\n');
        }
    }
    code
}

/// The modules that `code` names in paths from the crate's root.
fn imports(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        // `crate::{a::b, c::{d, e}}` names a and c.
        match path.strip_prefix('{') {
            None => names.extend(first_word(path)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (index, character) in list.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        character if start && !character.is_whitespace() => {
                            names.extend(first_word(&list[index..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    // What starts with a capital is an item of the crate's root, not a module.
    names.retain(|name| name.starts_with(char::is_lowercase));
    names
}

fn first_word(text: &str) -> Option<String> {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn has_unsafe(code: &str) -> bool {
    code.split(|character: char| !character.is_alphanumeric() && character != '_')
        .any(|word| word == "unsafe" || word == "unsafe_code")
}

#[test]
fn imports_go_downward_only() {
    for Source { path, module, code } in sources() {
        if module == "main" || module == "lib" {
            continue;
        }
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{}: say in LAYERS what {module} may know", path.display()));
        for import in imports(&code) {
            let known = import == module || allowed.contains(&import.as_str());
            assert!(known, "{}: {module} must not know {import}", path.display());
        }
    }
}

#[test]
fn layers_stand_on_those_before_them() {
    for (index, (module, allowed)) in LAYERS.iter().enumerate() {
        for known in *allowed {
            let below = LAYERS[..index].iter().any(|(name, _)| name == known);
            assert!(below, "{module} must come after {known}");
        }
    }
}

#[test]
fn parsers_are_pure() {
    for Source { path, module, code } in sources() {
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for outside in OUTSIDE {
            assert!(!code.contains(outside), "{}: {module} must not reach {outside}", path.display());
        }
        for name in ["fs", "net", "io", "time", "thread", "process", "env"] {
            let grouped = code.contains("use std::{") && code.contains(&format!("    {name}::"));
            assert!(!grouped, "{}: {module} must not reach std::{name}", path.display());
        }
    }
}

#[test]
fn unsafe_stays_where_it_is_reviewed() {
    for Source { path, module, code } in sources() {
        assert!(UNSAFE.contains(&module.as_str()) || !has_unsafe(&code), "{}: unsafe code", path.display());
    }
}

#[test]
fn only_the_export_knows_protobuf() {
    for Source { path, module, code } in sources() {
        // The demo's receiver decodes with prost what the encoder wrote.
        assert!(module == "export" || !code.contains("agentsight_otlp"), "{}", path.display());
        assert!(["export", "demo"].contains(&module.as_str()) || !code.contains("prost"), "{}", path.display());
    }
}

#[test]
fn what_these_tests_look_for_is_found() {
    let text = "use crate::{\n    limits::{A, B},\n    wire::field,\n};\nfn f() { crate::sys::now() } // crate::ring\n\
                #[cfg(test)]\nmod tests {\n    use crate::export;\n}\n#[cfg(test)]\nmod corpus_tests;\nunsafe impl X {}\n";
    let code = without_tests_and_comments(text);
    assert_eq!(imports(&code).into_iter().collect::<Vec<_>>(), ["limits", "sys", "wire"]);
    assert!(has_unsafe(&code));
    assert!(!has_unsafe("// SAFETY\nfn unsafely() {}"));
}
