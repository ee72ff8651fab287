//! The settings as clap arguments, made from the table.

use super::settings::{ALL, FILE_VARIABLE, Kind, Reach, Setting};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, error::Error};
use std::{collections::BTreeMap, path::PathBuf};

/// What the command line says about settings.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub(super) file: Option<PathBuf>,
    /// Values as given, by key.
    pub(super) values: BTreeMap<&'static str, Vec<String>>,
}

impl Flags {
    /// These flags, completed by those of an outer command.
    pub fn or(mut self, outer: &Self) -> Self {
        self.file = self.file.or_else(|| outer.file.clone());
        for (key, values) in &outer.values {
            self.values.entry(key).or_insert_with(|| values.clone());
        }
        self
    }

    /// With the flag of this name set, for callers in process.
    pub fn with(mut self, key: &'static str, values: &[&str]) -> Self {
        debug_assert!(ALL.iter().any(|setting| setting.key == key), "{key} is no setting");
        self.values.insert(key, values.iter().map(|value| (*value).to_owned()).collect());
        self
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let file = matches.get_one::<PathBuf>(CONFIG).cloned();
        let values = flag_settings()
            .filter_map(|setting| {
                let given = matches.get_many::<String>(setting.key)?;
                Some((setting.key, given.cloned().collect()))
            })
            .collect();
        Ok(Self { file, values })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?.or(self);
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("TOML file with settings [{FILE_VARIABLE}]"))
            .help_heading(HEADING);
        command.arg(file).args(flag_settings().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

const CONFIG: &str = "config";
const HEADING: &str = "Settings";

fn flag_settings() -> impl Iterator<Item = &'static Setting> {
    ALL.iter().filter(|setting| setting.reach != Reach::VariableOnly)
}

fn arg(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let arg = Arg::new(setting.key)
        .long(setting.key)
        .value_name(setting.form)
        .help(format!("{} [{}]{default}", setting.help.trim(), setting.variable()))
        .help_heading(HEADING)
        .hide(!setting.is_offered());
    match setting.kind {
        Kind::One => arg.action(ArgAction::Set),
        Kind::Many => arg.action(ArgAction::Append),
        Kind::Switch => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}
