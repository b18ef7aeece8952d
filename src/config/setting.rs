//! What is in force, key by key, as `config show` prints it.

use toml::de::DeValue;

use super::document::Origin;
use super::reader::whole;
use super::schema::Key;

/// Shown in the place of a secret.
const REDACTED: &str = "***";

/// Fields of entries of lists that are shown although the list holds secrets.
const SHOWN_FIELDS: [&str; 2] = ["username", "prefix"];

/// One key with the value that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The key.
    pub key: Key,
    /// Its value, secrets as `***`; `None` if it may be left out and was.
    pub value: Option<toml::Value>,
    /// Where the value comes from.
    pub origin: Origin,
}

impl Setting {
    pub(super) fn new(key: Key, value: &DeValue, origin: Origin) -> Setting {
        Setting { key, value: Some(visible(value, key.is_secret)), origin }
    }
}

/// The value without its secrets. Paths of files with secrets are no secrets.
fn visible(value: &DeValue, is_secret: bool) -> toml::Value {
    let is_path = |text: &str| text.starts_with("file:/") || text.starts_with("cookie:/");
    match value {
        DeValue::String(text) if is_secret && !is_path(text) => REDACTED.into(),
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => match whole(number).map(i64::try_from) {
            Some(Ok(number)) => number.into(),
            _ => number.to_string().into(),
        },
        DeValue::Float(number) => number.as_str().parse::<f64>().unwrap_or(f64::NAN).into(),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(date) => (*date).into(),
        DeValue::Array(list) => {
            let entries = list.iter().map(|entry| visible(entry.get_ref(), is_secret));
            toml::Value::Array(entries.collect())
        }
        DeValue::Table(table) => {
            let entries = table.iter().map(|(name, entry)| {
                let is_secret = is_secret && !SHOWN_FIELDS.contains(&name.get_ref().as_ref());
                (name.get_ref().to_string(), visible(entry.get_ref(), is_secret))
            });
            toml::Value::Table(entries.collect())
        }
    }
}
