//! `config default`: every setting with its default, as a commented TOML file.

use super::settings::{ALL, Kind, Setting};
use std::fmt::Write;

/// A TOML file that says what the defaults are; every line of it is a comment until edited.
pub fn default_toml() -> String {
    let mut text = String::from(
        "# Settings of taskwire. Each can also be a flag (--http-listen) or a variable\n\
         # (TASKWIRE_HTTP_LISTEN); flags win over variables, variables over this file.\n\
         # Values shown are the defaults.\n",
    );
    for setting in ALL.iter().filter(|setting| setting.is_offered()) {
        let help = setting.help.trim();
        let value = default_value(setting);
        writeln!(text, "\n# {help}.\n# Form: {}\n#{} = {value}", setting.form, setting.key)
            .expect("writing to a string does not fail");
    }
    text
}

fn default_value(setting: &Setting) -> String {
    let quoted = |text: &str| format!("{text:?}");
    match setting.kind {
        Kind::Switch => setting.default.to_owned(),
        Kind::One => quoted(setting.default),
        Kind::Many => {
            let values = setting.default.split(',').filter(|value| !value.is_empty());
            format!("[{}]", values.map(quoted).collect::<Vec<_>>().join(", "))
        }
    }
}
