//! The dependency policy of `deny.toml`, checked over `cargo metadata`: licences, bans, sources. Building
//! cargo-deny for the same three rules costs minutes; its advisories need a network that CI lacks.

use serde_json::Value;
use std::{collections::HashSet, env, fs, process::Command};

struct Policy {
    allowed_licences: Vec<String>,
    banned_crates: Vec<String>,
}

#[test]
fn every_dependency_keeps_the_policy() {
    let policy = policy();
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let built = built();
    assert!(built.len() > 50, "only {} packages: the tree is not whole", built.len());
    let is_built = |package: &&Value| {
        let word = |key: &str| package[key].as_str().expect("text").to_owned();
        built.contains(&(word("name"), word("version")))
    };
    let errors: Vec<String> =
        packages.iter().filter(is_built).flat_map(|package| complaints(package, &policy)).collect();
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn a_breach_is_found() {
    let policy = policy();
    let registry = "registry+somewhere";
    for (licence, source, name, expected) in [
        ("MIT OR GPL-3.0-only", registry, "fine", 0),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", registry, "fine", 0),
        ("GPL-3.0-only", registry, "bad", 1),
        ("MIT AND GPL-3.0-only", registry, "bad", 1),
        ("MIT", "git+somewhere", "bad", 1),
        ("MIT", registry, "openssl-sys", 1),
    ] {
        let package = serde_json::json!({
            "name": name, "version": "1.0.0", "license": licence, "source": source,
        });
        let found = complaints(&package, &policy);
        assert_eq!(found.len(), expected, "{name} {licence} {source}: {found:?}");
    }
}

fn complaints(package: &Value, policy: &Policy) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    match package["license"].as_str() {
        Some(licence) if is_allowed(licence, &policy.allowed_licences) => (),
        licence => errors.push(format!("{name}: licence {licence:?} is not allowed")),
    }
    if policy.banned_crates.iter().any(|banned| banned == name) {
        errors.push(format!("{name}: banned"));
    }
    match package["source"].as_str() {
        None => (),
        Some(source) if source.starts_with("registry+") => (),
        Some(source) => errors.push(format!("{name}: comes from {source}")),
    }
    errors
}

/// Whether an SPDX expression can be met by the allow list. `AND` binds stronger than `OR`; one level of
/// brackets, as crates use them.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    if let Some((start, end)) = expression.find('(').zip(expression.find(')')) {
        let inner = is_allowed(&expression[start + 1..end], allowed);
        let word = if inner { "ALLOWED" } else { "DENIED" };
        let flat = format!("{}{word}{}", &expression[..start], &expression[end + 1..]);
        return is_allowed(&flat, allowed);
    }
    expression.replace('/', " OR ").split(" OR ").any(|term| {
        term.split(" AND ")
            .map(str::trim)
            .all(|licence| licence == "ALLOWED" || allowed.iter().any(|allowed| allowed == licence))
    })
}

fn policy() -> Policy {
    let path = format!("{}/deny.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("deny.toml is there");
    let deny: toml::Table = text.parse().expect("deny.toml is TOML");
    let strings = |value: &toml::Value| {
        let list = value.as_array().expect("a list");
        let name = |item: &toml::Value| match item {
            toml::Value::Table(table) => table["crate"].as_str().expect("a name").to_owned(),
            other => other.as_str().expect("a name").to_owned(),
        };
        list.iter().map(name).collect::<Vec<_>>()
    };
    Policy {
        allowed_licences: strings(&deny["licenses"]["allow"]),
        banned_crates: strings(&deny["bans"]["deny"]),
    }
}

fn metadata() -> Value {
    let target = ["--filter-platform", TARGET];
    let output = cargo(&["metadata", "--format-version", "1", "--locked"], &target);
    serde_json::from_slice(&output).expect("JSON")
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Name and version of all that is compiled. The metadata also name what only a weak feature
/// (`ring?/alloc`) mentions.
fn built() -> HashSet<(String, String)> {
    let format = ["--prefix", "none", "--no-dedupe", "--format", "{p}"];
    let edges = ["--locked", "--edges", "normal,build,dev", "--target", TARGET];
    let output = cargo(&["tree"], &[&format[..], &edges].concat());
    let text = String::from_utf8(output).expect("text");
    let crates = text.lines().filter_map(|line| line.split_once(" v"));
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    crates.map(|(name, rest)| (name.to_owned(), word(rest))).collect()
}

fn cargo(command: &[&str], arguments: &[&str]) -> Vec<u8> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(command)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
