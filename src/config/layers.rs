//! File, variables and flags as text, one laid over the other; unknown names are refused here.

use super::{
    ConfigError,
    flags::Flags,
    settings::{ALL, FILE_VARIABLE, Kind, Reach, Setting, VARIABLE_PREFIX},
    suggest::nearest,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Values of one setting, and the name under which the user gave them.
#[derive(Debug)]
pub(super) struct Given {
    /// `--http-listen`, `TASKWIRE_HTTP_LISTEN`, or `http-listen in taskwire.toml`.
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// All layers merged: a later one replaces an earlier one key by key.
#[derive(Debug)]
pub(super) struct Layers(BTreeMap<&'static str, Given>);

impl Layers {
    /// Merges file < variables < flags.
    pub(super) fn merge(
        flags: &Flags,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let (variables, file_by_variable) = of_variables(variables)?;
        let mut merged = match flags.file.clone().or(file_by_variable) {
            Some(path) => of_file(&path)?,
            None => BTreeMap::new(),
        };
        merged.extend(variables);
        merged.extend(flags.values.iter().map(|(key, values)| {
            (*key, Given { name: format!("--{key}"), values: values.clone() })
        }));
        let layers = Self(merged);
        layers.refuse_what_is_not_built()?;
        Ok(layers)
    }

    /// What was given for a setting; `None` leaves it at its default.
    pub(super) fn given(&self, setting: &Setting) -> Option<&Given> {
        self.0.get(setting.key)
    }

    /// The one value of a setting: given, else its default, else `None`.
    pub(super) fn one(&self, setting: &Setting) -> Result<Option<String>, ConfigError> {
        let Some(given) = self.given(setting) else {
            return Ok((!setting.default.is_empty()).then(|| setting.default.to_owned()));
        };
        match given.values.as_slice() {
            [value] => Ok(Some(value.clone()).filter(|value| !value.is_empty())),
            _ => Err(self.refuse(setting, "takes one value".to_owned())),
        }
    }

    /// All values of a setting, taken apart at commas.
    pub(super) fn many(&self, setting: &Setting) -> Vec<String> {
        let default = [setting.default.to_owned()];
        let values = self.given(setting).map_or(default.as_slice(), |given| &given.values);
        values
            .iter()
            .flat_map(|value| value.split(','))
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
            .collect()
    }

    /// The error for a value of this setting.
    pub(super) fn refuse(&self, setting: &Setting, problem: String) -> ConfigError {
        let name = self.given(setting).map_or(setting.key, |given| &given.name);
        ConfigError::Value { name: name.to_owned(), problem }
    }

    fn refuse_what_is_not_built(&self) -> Result<(), ConfigError> {
        for setting in ALL {
            if let (Reach::NotBuilt(reason), Some(_)) = (setting.reach, self.given(setting)) {
                return Err(self.refuse(setting, reason.to_owned()));
            }
        }
        Ok(())
    }
}

type Values = BTreeMap<&'static str, Given>;

fn of_variables(
    variables: Vec<(OsString, OsString)>,
) -> Result<(Values, Option<PathBuf>), ConfigError> {
    let (mut values, mut file) = (Values::new(), None);
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        if name == FILE_VARIABLE {
            file = Some(PathBuf::from(value)).filter(|path| !path.as_os_str().is_empty());
            continue;
        }
        let Some(setting) = ALL.iter().find(|setting| setting.variable() == name) else {
            let known: Vec<String> = ALL.iter().map(Setting::variable).collect();
            let suggestion = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(ConfigError::UnknownVariable { name, suggestion });
        };
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::Value { name, problem: "is not UTF-8".to_owned() });
        };
        values.insert(setting.key, Given { name, values: vec![value] });
    }
    Ok((values, file))
}

fn of_file(path: &Path) -> Result<Values, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        detail: error.to_string().trim_end().to_owned(),
    })?;
    let mut values = Values::new();
    for (key, value) in table {
        let offered = || ALL.iter().filter(|setting| setting.reach != Reach::VariableOnly);
        let Some(setting) = offered().find(|setting| setting.key == key) else {
            let suggestion = nearest(&key, offered().map(|setting| setting.key));
            return Err(ConfigError::UnknownKey {
                key,
                path: path.to_owned(),
                suggestion: suggestion.map(str::to_owned),
            });
        };
        let name = format!("{} in {}", setting.key, path.display());
        let Some(texts) = as_texts(setting, &value) else {
            let problem = format!("takes {}, not {value}", setting.form);
            return Err(ConfigError::Value { name, problem });
        };
        values.insert(setting.key, Given { name, values: texts });
    }
    Ok(values)
}

/// A TOML value as the texts that a flag would carry.
fn as_texts(setting: &Setting, value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(is_on) if setting.kind == Kind::Switch => {
            Some(vec![is_on.to_string()])
        }
        toml::Value::Array(items) if setting.kind == Kind::Many => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}
