//! As much of JSON Schema as the published schema uses. A keyword that is not known here is an error, so that nothing is
//! left unchecked.

use serde_json::Value;

/// A schema.
pub struct Validator<'a> {
    root: &'a Value,
}

impl<'a> Validator<'a> {
    pub fn new(root: &'a Value) -> Self {
        Self { root }
    }

    /// What is wrong with a document, and where.
    pub fn faults(&self, json: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.look(self.root, json, "", &mut faults);
        faults
    }

    fn look(&self, schema: &Value, json: &Value, at: &str, faults: &mut Vec<String>) {
        if *schema == false {
            faults.push(format!("{at}: there must be nothing"));
        }
        for (keyword, wanted) in schema.as_object().into_iter().flatten() {
            if let Err(why) = self.holds(schema, keyword, wanted, json, at, faults) {
                faults.push(format!("{at}: {json} {why}"));
            }
        }
    }

    fn holds(
        &self,
        schema: &Value,
        keyword: &str,
        wanted: &Value,
        json: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) -> Result<(), String> {
        let ensure = |holds: bool| if holds { Ok(()) } else { Err(format!("is against {keyword} {wanted}")) };
        match keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let path = wanted.as_str().and_then(|r| r.strip_prefix('#')).expect("a local reference");
                let schema = self.root.pointer(path).unwrap_or_else(|| panic!("no {path}"));
                self.look(schema, json, at, faults);
            }
            "type" => ensure(one_or_many(wanted).iter().any(|t| is_of(json, t)))?,
            "const" => ensure(json == wanted)?,
            "enum" => ensure(wanted.as_array().expect("a list").contains(json))?,
            "anyOf" => {
                let fits = |schema: &Value| {
                    let mut faults = Vec::new();
                    self.look(schema, json, at, &mut faults);
                    faults.is_empty()
                };
                ensure(wanted.as_array().expect("a list").iter().any(fits))?;
            }
            "format" => match (wanted.as_str(), json.as_str()) {
                (Some("date-time"), Some(text)) => ensure(text.parse::<jiff::Timestamp>().is_ok())?,
                (Some("date-time"), None) => {}
                _ => panic!("unknown format {wanted}"),
            },
            "minimum" => ensure(json.as_f64().is_none_or(|n| n >= wanted.as_f64().expect("a number")))?,
            "minItems" => {
                ensure(json.as_array().is_none_or(|a| a.len() as u64 >= wanted.as_u64().expect("a number")))?
            }
            "prefixItems" => {
                let schemas = wanted.as_array().expect("a list");
                for (i, (item, schema)) in json.as_array().into_iter().flatten().zip(schemas).enumerate() {
                    self.look(schema, item, &format!("{at}/{i}"), faults);
                }
            }
            "items" => {
                let first = schema["prefixItems"].as_array().map_or(0, Vec::len);
                for (i, item) in json.as_array().into_iter().flatten().enumerate().skip(first) {
                    self.look(wanted, item, &format!("{at}/{i}"), faults);
                }
            }
            "required" => {
                let names = wanted.as_array().expect("a list").iter().filter_map(Value::as_str);
                let missing: Vec<_> =
                    names.filter(|name| json.as_object().is_some_and(|o| !o.contains_key(*name))).collect();
                ensure(missing.is_empty())?;
            }
            "properties" => {
                for (name, schema) in wanted.as_object().expect("a map") {
                    if let Some(field) = json.get(name) {
                        self.look(schema, field, &format!("{at}/{name}"), faults);
                    }
                }
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                ensure(*wanted != false || json.as_object().is_none_or(|o| o.keys().all(known)))?;
            }
            "pattern" => {
                ensure(json.as_str().is_none_or(|text| fits_pattern(wanted.as_str().unwrap_or(""), text)))?
            }
            _ => panic!("unknown keyword {keyword}"),
        }
        Ok(())
    }
}

fn one_or_many(types: &Value) -> Vec<&str> {
    match types {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn is_of(json: &Value, name: &str) -> bool {
    match name {
        "null" => json.is_null(),
        "boolean" => json.is_boolean(),
        "integer" => json.is_i64() || json.is_u64(),
        "number" => json.is_number(),
        "string" => json.is_string(),
        "array" => json.is_array(),
        "object" => json.is_object(),
        _ => panic!("unknown type {name}"),
    }
}

/// The one pattern that there is: a time in milliseconds, in UTC.
fn fits_pattern(pattern: &str, text: &str) -> bool {
    assert_eq!(pattern, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", "unknown pattern");
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}
