//! `config check` and `config show`: the gateway's own reading of its file, without a gateway.

use std::path::Path;
use std::process::ExitCode;

use gateway::config::problem::{Problem, Refusal};
use gateway::config::schema::KEYS;
use gateway::config::setting::Setting;
use gateway::config::surroundings::Surroundings;
use gateway::config::{Checked, Origin, read};
use serde_json::{Value, json};

use crate::arguments::ShowOptions;
use crate::say;

/// Tells every mistake and every warning; 1 if there is a mistake.
pub fn check(file: &Path) -> ExitCode {
    match read(file, &Surroundings::of_this_process()) {
        Ok(checked) => {
            say(accepted(&checked).trim_end());
            ExitCode::SUCCESS
        }
        Err(refusal) => refused(&refusal),
    }
}

/// Prints what is in force; or what is wrong, and 1.
pub fn show(options: &ShowOptions) -> ExitCode {
    match read(&options.file, &Surroundings::of_this_process()) {
        Ok(checked) => {
            let is_shown =
                |setting: &&Setting| options.effective || setting.origin != Origin::Default;
            let settings: Vec<&Setting> = checked.settings.iter().filter(is_shown).collect();
            match options.json {
                true => say(&json_of(&settings).to_string()),
                false => say(table(&settings).trim_end()),
            }
            ExitCode::SUCCESS
        }
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> ExitCode {
    say(refusal.to_string().trim_end());
    if !refusal.warnings.is_empty() {
        say(&format!("\n{}", warnings(&refusal.warnings, &refusal.file).trim_end()));
    }
    ExitCode::FAILURE
}

fn warnings(warnings: &[Problem], file: &str) -> String {
    let texts: Vec<String> = warnings.iter().map(|warning| warning.text(file)).collect();
    format!("Warnings:\n\n{}", texts.join("\n"))
}

/// What there is to say about a configuration without mistakes.
fn accepted(checked: &Checked) -> String {
    let count = |name: &str| {
        checked.settings.iter().filter(|setting| setting.origin.name() == name).count()
    };
    let mut text = format!(
        "{}: accepted; of {} keys {} are from the file, {} from the environment, {} by default\n",
        checked.file,
        KEYS.len(),
        count("file"),
        count("env"),
        count("default")
    );
    if !checked.warnings.is_empty() {
        text.push_str(&format!("\n{}", warnings(&checked.warnings, &checked.file)));
    }
    if !checked.notes.is_empty() {
        text.push_str(&format!("\nIn force:\n    {}\n", checked.notes.join("\n    ")));
    }
    text
}

/// A value as TOML; a dash for a key that was left out.
fn value(setting: &Setting) -> String {
    setting.value.as_ref().map_or("-".to_owned(), ToString::to_string)
}

/// Key, origin and value; the value last, because it may be long.
fn table(settings: &[&Setting]) -> String {
    let width = settings.iter().map(|setting| setting.key.path.len()).max().unwrap_or(0);
    let line = |setting: &&Setting| {
        let (key, origin) = (setting.key.path, setting.origin.name());
        format!("{key:width$}  {origin:7}  {}\n", value(setting))
    };
    settings.iter().map(line).collect()
}

fn json_of(settings: &[&Setting]) -> Value {
    let entry = |setting: &&Setting| {
        let variable = match &setting.origin {
            Origin::Environment(name) => Some(name),
            Origin::Default | Origin::File => None,
        };
        json!({
            "key": setting.key.path,
            "value": setting.value,
            "origin": setting.origin.name(),
            "variable": variable,
        })
    };
    settings.iter().map(entry).collect()
}
