//! Durations as people write them: `15s`, `5m`, `250ms`. A bare number is refused: it hides its unit.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().parse::<f64>().is_ok() {
        return Err(D::Error::custom(format!("`{text}` has no unit: write `{text}s` for seconds")));
    }
    humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("`{text}` is not a duration: {error}")))
}

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
