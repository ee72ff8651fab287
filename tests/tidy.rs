//! Rules that rustc, rustfmt and clippy do not keep: who may import whom, and how long things get.
use std::{collections::BTreeMap, fs, path::Path};

/// The only place where the order of the modules is written. A module may import those to its right.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("shutdown", &[]),
    ("clock", &[]),
    ("metrics", &[]),
    ("position", &[]),
    ("systemd", &[]),
    ("causes", &[]),
    ("redb_file", &[]),
    ("budget", &[]),
    ("places", &[]),
    ("task", &[]),
    ("auth", &["causes", "task", "clock", "metrics", "shutdown"]),
    ("wire", &["position"]),
    ("disk", &["clock"]),
    ("log", &["disk", "wire", "position", "clock", "metrics"]),
    ("store", &["disk", "task", "position", "clock", "metrics", "redb_file"]),
    (
        "broker",
        &[
            "budget",
            "disk",
            "log",
            "wire",
            "position",
            "auth",
            "clock",
            "shutdown",
            "metrics",
            "places",
            "redb_file",
        ],
    ),
    ("feed", &["broker", "log", "wire", "task", "position", "clock", "metrics"]),
    ("hub", &["task", "auth", "position", "store", "metrics", "clock"]),
    ("apply", &["feed", "store", "hub", "task", "position", "clock", "metrics", "shutdown"]),
    (
        "http",
        &[
            "auth", "budget", "causes", "task", "store", "feed", "apply", "hub", "position",
            "clock", "metrics", "places", "shutdown",
        ],
    ),
    ("archive", &["broker", "causes", "disk", "log", "store", "position"]),
    (
        "config",
        &[
            "apply", "auth", "broker", "causes", "feed", "http", "hub", "log", "store", "position",
            "task",
        ],
    ),
    (
        "daemon",
        &[
            "apply", "archive", "auth", "broker", "causes", "clock", "config", "disk", "feed",
            "http", "hub", "log", "metrics", "position", "shutdown", "store", "systemd", "task",
        ],
    ),
    (
        "cli",
        &[
            "archive", "auth", "broker", "causes", "clock", "config", "daemon", "disk", "log",
            "position", "shutdown", "store", "task", "wire",
        ],
    ),
];

const MAX_FILE_LINES: usize = 800;
const MAX_COLUMNS: usize = 100;

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut errors = Vec::new();
    for (module, text) in sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path()) {
        errors.extend(check(&module, &text));
    }
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    let mut seen: Vec<&str> = Vec::new();
    for (module, imports) in MAY_IMPORT {
        for import in *imports {
            assert!(seen.contains(import), "{module} imports {import}, which stands below it");
        }
        seen.push(module);
    }
}

#[test]
fn a_forbidden_import_is_found() {
    assert_eq!(check("wire", "use crate::log::Log;\n").len(), 1);
    assert_eq!(
        check("log", "use crate::{\n    broker::PartitionHandle,\n    wire::Offset,\n};\n").len(),
        1
    );
    assert_eq!(check("broker", "fn f() { crate::log::x(crate::wire::y()) }\n").len(), 0);
    assert_eq!(check("nowhere", "\n"), ["src/nowhere is not in MAY_IMPORT"]);
}

/// Every complaint about the text of one top-level module.
fn check(module: &str, text: &str) -> Vec<String> {
    let table: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let Some(allowed) = table.get(module) else {
        return vec![format!("src/{module} is not in MAY_IMPORT")];
    };
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    crate_paths(&code)
        .into_iter()
        .filter(|import| import != module && !allowed.contains(&import.as_str()))
        .map(|import| format!("src/{module}: imports crate::{import}, the table does not allow it"))
        .collect()
}

/// The first names after every `crate::`, with a brace list taken apart at its first level.
fn crate_paths(code: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
            .collect::<String>()
    };
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.trim_start().strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut item) = (0_u32, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => found.push(name(&std::mem::take(&mut item))),
                _ if depth == 0 => item.push(c),
                _ => (),
            }
        }
        found.push(name(&item));
    }
    found.retain(|name| !name.is_empty());
    found
}

/// `(top-level module, text)` of every file under `src`, after a look at its size.
fn sources(src: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut pending = vec![src.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let relative = path.strip_prefix(src).expect("below src");
            let first = relative.iter().next().expect("not empty").to_string_lossy();
            let module = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("UTF-8");
            assert!(text.is_ascii(), "{}: not ASCII", relative.display());
            assert!(text.lines().count() <= MAX_FILE_LINES, "{}: too long", relative.display());
            for (number, line) in text.lines().enumerate() {
                assert!(
                    line.len() <= MAX_COLUMNS,
                    "{}:{}: too wide",
                    relative.display(),
                    number + 1
                );
            }
            if module != "lib" && module != "main" {
                found.push((module, text));
            }
        }
    }
    found
}
