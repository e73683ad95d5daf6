//! Is what `demo --json` printed complete, and does it say what it must?

use crate::Outcome;
use serde_json::Value;

/// Largest logit error that is let pass: about a thousandth of the standard deviation of the
/// shipped model's logits (its card).
const MAX_LOGIT_ERROR: f64 = 1e-3;

/// Least security of every key.
const MIN_BITS: f64 = 128.0;

/// Checks the object; the line sums it up.
pub fn check(json: &str) -> Outcome {
    let root: Value =
        serde_json::from_str(json).map_err(|e| format!("not one JSON object: {e}"))?;
    let mut wrong = Vec::new();
    let sentences = list(&root, "/sentences", &mut wrong);
    let mut worst = 0.0f64;
    for (i, sentence) in sentences.iter().enumerate() {
        let at = |path: &str| sentence.pointer(path);
        let (encrypted, plaintext) = (at("/encrypted/label"), at("/plaintext/label"));
        if encrypted.and_then(Value::as_str).is_none() || encrypted != plaintext {
            wrong.push(format!(
                "sentence {i}: label {encrypted:?} encrypted, {plaintext:?} in the clear"
            ));
        }
        for side in ["encrypted", "plaintext"] {
            let logits = at(&format!("/{side}/logits")).and_then(Value::as_array);
            if logits.is_none_or(|l| l.len() < 2 || l.iter().any(|v| !v.is_number())) {
                wrong.push(format!("sentence {i}: {side} logits are missing"));
            }
            number(sentence, &format!("/{side}/probability"), &mut wrong);
        }
        if at("/text").and_then(Value::as_str).is_none() {
            wrong.push(format!("sentence {i}: no text"));
        }
        worst = worst.max(number(sentence, "/max_logit_error", &mut wrong));
    }
    if worst > MAX_LOGIT_ERROR {
        wrong.push(format!(
            "logit error {worst:e}, at most {MAX_LOGIT_ERROR:e} is expected"
        ));
    }
    for stage in ["keygen", "encrypt", "run", "decrypt", "total"] {
        number(&root, &format!("/seconds/{stage}"), &mut wrong);
    }
    for bytes in ["peak_rss", "key", "ciphertext"] {
        let paths = match bytes {
            "ciphertext" => vec![
                "/ciphertext_bytes_up".into(),
                "/ciphertext_bytes_down".into(),
            ],
            _ => vec![format!("/{bytes}_bytes")],
        };
        for path in paths {
            if number(&root, &path, &mut wrong) <= 0.0 {
                wrong.push(format!("{path} is not positive"));
            }
        }
    }
    let rows = list(&root, "/security", &mut wrong);
    let mut least = f64::INFINITY;
    for row in &rows {
        for path in ["/log_n", "/log_qp"] {
            number(row, path, &mut wrong);
        }
        least = least.min(number(row, "/bits", &mut wrong));
    }
    if least < MIN_BITS {
        wrong.push(format!(
            "a key has {least} bits of security, {MIN_BITS} are expected"
        ));
    }
    if wrong.is_empty() {
        return Ok(format!(
            "demo: {} sentences, all labels equal, largest logit error {worst:.1e}, {} keys at {least} \
             bits or more, {:.1} s, {:.2} GiB",
            sentences.len(),
            rows.len(),
            number(&root, "/seconds/total", &mut wrong),
            number(&root, "/peak_rss_bytes", &mut wrong) / f64::from(1 << 30),
        ));
    }
    Err(format!("demo: {}", wrong.join("\ndemo: ")))
}

/// The number at `path`; noted as wrong, and zero, if it is not there.
fn number(root: &Value, path: &str, wrong: &mut Vec<String>) -> f64 {
    let found = root.pointer(path).and_then(Value::as_f64);
    if found.is_none() {
        wrong.push(format!("{path} is no number"));
    }
    found.unwrap_or(0.0)
}

/// The list at `path`; noted as wrong if it is missing or empty.
fn list(root: &Value, path: &str, wrong: &mut Vec<String>) -> Vec<Value> {
    let found = root
        .pointer(path)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if found.is_empty() {
        wrong.push(format!("{path} is missing or empty"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        let side =
            serde_json::json!({"label": "positive", "probability": 0.9, "logits": [0.1, 2.0]});
        serde_json::json!({
            "sentences": [{"text": "fine", "encrypted": side, "plaintext": side, "max_logit_error": 1e-6}],
            "seconds": {"keygen": 1.0, "encrypt": 0.1, "run": 2.0, "decrypt": 0.1, "total": 3.2},
            "peak_rss_bytes": 1, "key_bytes": 1, "ciphertext_bytes_up": 1, "ciphertext_bytes_down": 1,
            "security": [{"key": "relinearization", "log_n": 14, "log_qp": 420.0, "bits": 128}],
        })
    }

    #[test]
    fn a_complete_object_passes() {
        assert!(check(&good().to_string()).is_ok());
    }

    #[test]
    fn every_change_for_the_worse_is_said() {
        let cases = [
            ("/sentences", serde_json::json!([]), "/sentences"),
            ("/sentences/0/encrypted/label", "negative".into(), "label"),
            ("/sentences/0/max_logit_error", 0.5.into(), "logit error"),
            ("/sentences/0/plaintext/logits", Value::Null, "logits"),
            ("/security/0/bits", 0.into(), "bits of security"),
            ("/seconds/run", Value::Null, "/seconds/run"),
            ("/key_bytes", 0.into(), "/key_bytes"),
        ];
        for (path, value, said) in cases {
            let mut json = good();
            *json.pointer_mut(path).unwrap() = value;
            let message = check(&json.to_string()).unwrap_err();
            assert!(message.contains(said), "{path}: {message}");
        }
        assert!(check("{} {}").unwrap_err().contains("one JSON object"));
    }
}
