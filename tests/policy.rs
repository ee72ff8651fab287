//! The supply chain: the dependency policy of `deny.toml`, checked over `cargo metadata` (licences, bans,
//! sources); no unsafe code; and the bill of materials, `target/sbom.cdx.json`. Building cargo-deny for
//! the same three rules costs minutes (docs/adr/0011-proof.md); its advisories need a network that CI
//! lacks.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    env, fs,
    path::Path,
    process::Command,
};

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

#[test]
fn every_test_that_the_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String =
        ["src", "tests"].iter().flat_map(|folder| texts(&root.join(folder))).collect();
    let mut missing = Vec::new();
    for document in ["docs/architecture.md", "docs/promises.md", "docs/threat-model.md"] {
        for name in read(document).split('`').skip(1).step_by(2).filter(|name| is_test(name)) {
            let name = name.rsplit("::").next().unwrap_or(name);
            if !code.contains(&format!("fn {name}(")) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// Whether a name in a document is that of a test: a sentence.
fn is_test(name: &str) -> bool {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
    name.matches('_').count() > 2 && name.chars().all(is_name)
}

/// Every Rust file below, but for those of other crates.
fn texts(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(texts(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).expect("UTF-8"));
        }
    }
    found
}

#[test]
fn no_unsafe_code_can_be_written() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn the_bill_of_materials_names_every_part_of_the_binary() {
    let bill = bill_of_materials(&metadata(), &checksums());
    let components = bill["components"].as_array().expect("components");
    let names: BTreeSet<&str> =
        components.iter().filter_map(|part| part["name"].as_str()).collect();
    for (name, is_in) in [("redb", true), ("aws-lc-sys", true), ("cc", true), ("proptest", false)] {
        assert_eq!(names.contains(name), is_in, "{name}");
    }
    let known: BTreeSet<&str> =
        components.iter().filter_map(|part| part["bom-ref"].as_str()).collect();
    for part in components {
        assert!(part["licenses"][0]["expression"].is_string(), "{part}");
        assert_eq!(part["hashes"][0]["content"].as_str().map(str::len), Some(64), "{part}");
    }
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        for part in dependency["dependsOn"].as_array().expect("a list") {
            assert!(part.as_str().is_some_and(|part| known.contains(part)), "{part} is listed");
        }
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    fs::write(target.join("sbom.cdx.json"), format!("{bill:#}\n")).expect("written");
}

/// CycloneDX 1.5: every crate that the binary is built from, with its licence and its checksum.
fn bill_of_materials(metadata: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let root = metadata["resolve"]["root"].as_str().expect("a root");
    let needs: BTreeMap<&str, Vec<&str>> = nodes.iter().map(needed).collect();
    let (mut used, mut pending) = (BTreeSet::new(), vec![root]);
    while let Some(id) = pending.pop() {
        if used.insert(id) {
            pending.extend(&needs[id]);
        }
    }
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |id: &str| packages.iter().find(|package| package["id"] == id).expect("a package");
    let components: Vec<Value> = used
        .iter()
        .filter(|id| **id != root)
        .map(|id| component("library", of(id), checksums))
        .collect();
    let dependencies: Vec<Value> = used
        .iter()
        .map(|id| {
            let needs: Vec<String> = needs[id].iter().map(|id| purl(of(id))).collect();
            json!({"ref": purl(of(id)), "dependsOn": needs})
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": component("application", of(root), checksums)},
        "components": components, "dependencies": dependencies,
    })
}

/// A crate, and those that it needs to be built or run; what only tests need is left out.
fn needed(node: &Value) -> (&str, Vec<&str>) {
    let list = node["deps"].as_array().expect("deps").iter();
    let is_needed = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array().expect("kinds");
        kinds.iter().any(|kind| kind["kind"] != "dev")
    };
    let ids = list.filter(is_needed).map(|dependency| dependency["pkg"].as_str().expect("an id"));
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    (node["id"].as_str().expect("an id"), ids)
}

fn component(kind: &str, package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let purl = purl(package);
    let mut part = json!({
        "type": kind, "bom-ref": purl, "purl": purl,
        "name": package["name"], "version": package["version"],
        "licenses": [{"expression": spdx(package["license"].as_str().unwrap_or_default())}],
    });
    if let Some(checksum) = checksums.get(&purl) {
        part["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    part
}

/// Some crates still have the old `/` between licences.
fn spdx(licence: &str) -> String {
    licence.replace(" / ", "/").replace('/', " OR ")
}

fn purl(package: &Value) -> String {
    let text = |name: &str| package[name].as_str().expect("text");
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

/// The SHA-256 of each crate's archive, by its package URL.
fn checksums() -> BTreeMap<String, String> {
    let lock: toml::Table = read("Cargo.lock").parse().expect("Cargo.lock is TOML");
    let of = |package: &toml::Value| {
        let checksum = package.get("checksum")?.as_str()?.to_owned();
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        Some((format!("pkg:cargo/{name}@{version}"), checksum))
    };
    lock["package"].as_array().expect("packages").iter().filter_map(of).collect()
}

fn read(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
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
    let deny: toml::Table = read("deny.toml").parse().expect("deny.toml is TOML");
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
