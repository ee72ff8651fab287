use super::*;
use std::fs;

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn flags(values: &[(&'static str, &str)]) -> Flags {
    values.iter().fold(Flags::default(), |flags, (key, value)| flags.with(key, &[value]))
}

#[track_caller]
fn refused(flags: &Flags, variables: &[(&str, &str)], expected: &str) {
    let error = Config::resolve(flags, environment(variables)).expect_err("refused").to_string();
    assert!(error.contains(expected), "{error:?} does not say {expected:?}");
}

fn with_file(text: &str) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("taskwire.toml");
    fs::write(&path, text).expect("written");
    (dir, Flags { file: Some(path), ..Flags::default() })
}

#[test]
fn defaults_are_loopback_and_development() {
    let config = Config::resolve(&Flags::default(), Vec::new()).expect("good");
    assert!(config.is_development());
    assert_eq!(config.http_listen.len(), 2);
    assert_eq!(config.topic.as_str(), "task-events");
    assert_eq!(config.broker_options().reserved_topics[1].as_str(), "task-events.dlq");
    assert_eq!(config.stop_timeout, Duration::from_secs(25));
    assert!(config.warnings().is_empty());
}

#[test]
fn flags_win_over_variables_over_the_file() {
    let (_dir, file) = with_file("topic = \"file\"\ndata-dir = \"file\"\nlog = \"warn\"\n");
    let flags = file.with("topic", &["flag"]);
    let variables = [("TASKWIRE_TOPIC", "variable"), ("TASKWIRE_DATA_DIR", "variable")];
    let config = Config::resolve(&flags, environment(&variables)).expect("good");
    assert_eq!(config.topic.as_str(), "flag");
    assert_eq!(config.data_dir, Path::new("variable"));
    assert_eq!(config.logging.filter, "warn");
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one() {
    let (_dir, file) = with_file("http_listen = \"127.0.0.1:1\"\n");
    refused(&file, &[], "unknown key http_listen in ");
    refused(&file, &[], "did you mean http-listen?");
    let (_dir, file) = with_file("jwt-secret = \"x\"\n");
    refused(&file, &[], "did you mean jwt-secret-file?");
    refused(
        &Flags::default(),
        &[("TASKWIRE_HTTP_LISTENS", "x")],
        "unknown variable TASKWIRE_HTTP_LISTENS; did you mean TASKWIRE_HTTP_LISTEN?",
    );
}

#[test]
fn a_wrong_value_names_its_setting_and_what_is_allowed() {
    let check = |key, value, expected| refused(&flags(&[(key, value)]), &[], expected);
    check("durability", "always", "--durability: \"always\" is not known; allowed are commit");
    check("topic", "a b", "--topic: \"a b\" is no topic name");
    check("http-listen", "8000", "--http-listen: \"8000\" is no address to listen on");
    check("http-listen", "127.0.0.1:1,127.0.0.1:1", "is given twice");
    check("stop-timeout", "25", "--stop-timeout: \"25\" is no duration");
    check("protect-metrics", "maybe", "allowed are true, false");
    check("log", "loud=very", "is no filter");
    check("offset-reset", "newest", "allowed are earliest, latest");
    check("http-connections-max", "0", "is no count");
    check("http-rate-per-user", "100", "is no rate; allowed are COUNT/s,BURST");
    check("http-rate-per-user", "100/d,1", "is no rate");
    check("socket-rate", "0/s,1", "is no count");
    check("kafka", "a:9092", "this build has no Kafka cluster client");
    let (_dir, file) = with_file("topic = [\"a\"]\n");
    refused(&file, &[], "topic in ");
    let (_dir, file) = with_file("topic = \n");
    refused(&file, &[], "is not valid TOML");
    refused(&Flags::default(), &[("TASKWIRE_TOPIC", "")], "TASKWIRE_TOPIC: must not be empty");
}

#[test]
fn users_are_limited_unless_it_is_development() {
    let limits = |values: &[(&'static str, &str)], variables| {
        let config = Config::resolve(&flags(values), environment(variables)).expect("good");
        config.http_options().limits
    };
    let secret = [("TASKWIRE_JWT_SECRET", "0123456789abcdef0123456789abcdef")];
    assert_eq!(limits(&[], &[]).rate_per_user, None);
    let usual = http::Rate::new(2_000, Duration::from_secs(1), 10_000);
    assert_eq!(limits(&[], &secret).rate_per_user, usual);
    let given = [("http-rate-per-user", "30/m, 5")];
    assert_eq!(limits(&given, &[]).rate_per_user, http::Rate::new(30, Duration::from_secs(60), 5));
    assert_eq!(limits(&[("http-rate-per-user", "off")], &secret).rate_per_user, None);
    let off = [("http-connections-per-address-max", "off")];
    assert_eq!(limits(&off, &[]).connections_per_address_max, None);
}

#[test]
fn a_listener_beyond_loopback_needs_authentication() {
    let http = flags(&[("http-listen", "0.0.0.0:8000")]);
    refused(&http, &[], "give --jwt-secret-file");
    let secret = [("TASKWIRE_JWT_SECRET", "0123456789abcdef0123456789abcdef")];
    Config::resolve(&http, environment(&secret)).expect("a secret is enough for HTTP");
    let kafka = flags(&[("kafka-listen", "[::]:9092")]);
    refused(&kafka, &secret, "--kafka-allow-anonymous");
    let kafka = kafka.with("kafka-allow-anonymous", &["true"]);
    let config = Config::resolve(&kafka, environment(&secret)).expect("allowed");
    assert!(config.warnings()[0].contains("without login"));
}

#[test]
fn the_kafka_port_can_be_switched_off_and_http_cannot() {
    let config = Config::resolve(&flags(&[("kafka-listen", "none")]), Vec::new()).expect("good");
    assert!(config.kafka_listen.is_empty());
    refused(&flags(&[("http-listen", "none")]), &[], "--http-listen");
}

#[test]
fn secrets_come_by_file_or_variable_and_are_not_printed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    fs::write(&path, "hunter2hunter2\n").expect("written");
    let path = path.to_str().expect("UTF-8");
    let by_file = flags(&[("jwt-secret-file", path)]);
    let config = Config::resolve(&by_file, Vec::new()).expect("good");
    assert_eq!(config.auth_options().expect("good").secret, b"hunter2hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.warnings()[0].contains("14 bytes"));
    refused(&by_file, &[("TASKWIRE_JWT_SECRET", "x")], "give one of them");
    refused(&flags(&[("jwt-secret-file", "/nowhere/key")]), &[], "cannot read /nowhere/key");
    fs::write(path, "\n").expect("written");
    refused(&by_file, &[], "holds no secret");
}

#[test]
fn a_jwks_ends_development_mode_and_signs_nothing() {
    let url = flags(&[("jwt-jwks", "https://issuer.example/keys?key=hunter2")]);
    let config = Config::resolve(&url, Vec::new()).expect("good");
    assert!(!config.is_development() && config.warnings().is_empty());
    assert!(matches!(config.existing_secret(), Err(ConfigError::NoSigningKey)));
    let options = config.auth_options().expect("good");
    assert!(options.secret.is_empty() && options.jwks.is_some());
    assert!(!format!("{config:?} {options:?}").contains("hunter2"));
    let secret = [("TASKWIRE_JWT_SECRET", "0123456789abcdef0123456789abcdef")];
    let both = Config::resolve(&url, environment(&secret)).expect("good");
    assert!(both.existing_secret().is_ok());
    let open = url.with("http-listen", &["0.0.0.0:8000"]);
    Config::resolve(&open, Vec::new()).expect("a JWKS is enough for HTTP");
    let clear = flags(&[("jwt-jwks", "http://issuer.example/keys")]);
    let config = Config::resolve(&clear, Vec::new()).expect("allowed");
    assert!(config.warnings()[0].contains("without TLS"));
    for (bad, expected) in [
        ("/nowhere/jwks.json", "cannot read"),
        ("ftp://issuer.example/keys", "http(s)://"),
        ("https://user:hunter2@issuer.example/keys", "password"),
    ] {
        refused(&flags(&[("jwt-jwks", bad)]), &[], expected);
    }
}

#[test]
fn systemd_gives_the_data_directory_unless_one_is_named() {
    let systemd = [("STATE_DIRECTORY", "/var/lib/taskwire")];
    let config = Config::resolve(&Flags::default(), environment(&systemd)).expect("good");
    assert_eq!(config.data_dir, Path::new("/var/lib/taskwire"));
    let named = flags(&[("data-dir", "/elsewhere")]);
    let config = Config::resolve(&named, environment(&systemd)).expect("good");
    assert_eq!(config.data_dir, Path::new("/elsewhere"));
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let text = default_toml();
    let uncommented: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
        .filter(|line| !line.ends_with("= \"\""))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(uncommented.contains("kafka-listen = [\"127.0.0.1:9092\", \"[::1]:9092\"]"));
    let (_dir, file) = with_file(&uncommented);
    let printed = Config::resolve(&file, Vec::new()).expect("the defaults are good");
    let defaults = Config::resolve(&Flags::default(), Vec::new()).expect("good");
    assert_eq!(format!("{printed:?}"), format!("{defaults:?}"));
    assert!(!text.contains("fanout"));
}

#[test]
fn inner_flags_win_over_outer_ones() {
    let outer = flags(&[("topic", "outer"), ("log", "debug")]);
    let merged = flags(&[("topic", "inner")]).or(&outer);
    let config = Config::resolve(&merged, Vec::new()).expect("good");
    assert_eq!((config.topic.as_str(), config.logging.filter.as_str()), ("inner", "debug"));
}
