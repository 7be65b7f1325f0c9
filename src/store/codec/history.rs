//! The rows of the history as JSON, in the store and wherever they are shown.

use serde::{Deserialize, Serialize};

use super::to_json;
use crate::election::history::Reason;
use crate::election::history::row::{End, Row, Seen};
use crate::election::record::{Incarnation, MemberId, Revision, Token};

/// The end of the year 9999. Whatever a row says, it must not be later: who shows it has to write it as a date.
const LAST_MS: u64 = 253_402_300_799_999;

#[derive(Serialize, Deserialize)]
struct RowJson {
    token: u64,
    node: String,
    uuid: String,
    incarnation: u64,
    address: String,
    from_ms: u64,
    to_ms: Option<u64>,
    reason: Option<String>,
    planned: Option<bool>,
    gap_ms: Option<u64>,
    previous: Option<String>,
    detail: Option<String>,
    seen: Option<SeenJson>,
    /// `holder`, or `successor`.
    said_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct SeenJson {
    ack_age_ms: Option<u64>,
    slowest: Option<String>,
    slowest_ms: Option<u64>,
    tick_delay_ms: u64,
}

/// A row as JSON.
pub fn encode_row(row: &Row) -> Vec<u8> {
    to_json(&RowJson::of(row))
}

/// The row in a value; `None` if it is none, or names a reason that we do not know.
pub fn decode_row(value: &[u8]) -> Option<Row> {
    let json: RowJson = serde_json::from_slice(value).ok()?;
    let end = match &json.reason {
        None => None,
        Some(reason) => Some(End {
            at_ms: json.to_ms?.min(LAST_MS),
            reason: Reason::parse(reason)?,
            detail: json.detail.unwrap_or_default(),
            seen: json.seen.map(Seen::from),
            by_holder: json.said_by.as_deref() == Some("holder"),
        }),
    };
    Some(Row {
        token: Token::new(Revision(json.token))?,
        holder: MemberId {
            node: json.node,
            uuid: json.uuid.parse().ok()?,
            incarnation: Incarnation(json.incarnation),
        },
        address: json.address,
        from_ms: json.from_ms.min(LAST_MS),
        gap_ms: json.gap_ms.map(|ms| ms.min(LAST_MS)),
        previous: json.previous,
        end,
    })
}

impl RowJson {
    fn of(row: &Row) -> Self {
        let end = row.end.as_ref();
        let said_by = |e: &End| if e.by_holder { "holder" } else { "successor" };
        Self {
            token: row.token.get(),
            node: row.holder.node.clone(),
            uuid: row.holder.uuid.to_string(),
            incarnation: row.holder.incarnation.0,
            address: row.address.clone(),
            from_ms: row.from_ms,
            to_ms: end.map(|e| e.at_ms),
            reason: end.map(|e| e.reason.as_str().to_owned()),
            planned: end.map(|e| e.reason.is_planned()),
            gap_ms: row.gap_ms,
            previous: row.previous.clone(),
            detail: end.map(|e| e.detail.clone()).filter(|d| !d.is_empty()),
            seen: end.and_then(|e| e.seen.clone()).map(SeenJson::from),
            said_by: end.map(said_by).map(str::to_owned),
        }
    }
}

impl From<SeenJson> for Seen {
    fn from(json: SeenJson) -> Self {
        let SeenJson { ack_age_ms, slowest, slowest_ms, tick_delay_ms } = json;
        Self { ack_age_ms, slowest, slowest_ms, tick_delay_ms }
    }
}

impl From<Seen> for SeenJson {
    fn from(seen: Seen) -> Self {
        let Seen { ack_age_ms, slowest, slowest_ms, tick_delay_ms } = seen;
        Self { ack_age_ms, slowest, slowest_ms, tick_delay_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::record::MemberUuid;

    #[test]
    fn a_row_survives_the_round_trip_and_an_unknown_reason_is_not_guessed_at() {
        let seen = Seen {
            ack_age_ms: Some(4_900),
            slowest: Some("http://b:2379".into()),
            slowest_ms: Some(2_100),
            tick_delay_ms: 3,
        };
        let reason = Reason::RenewDeadline;
        let end = End { at_ms: 9, reason, detail: "why".into(), seen: Some(seen), by_holder: true };
        let mut row = Row {
            token: Token::new(Revision(7)).unwrap(),
            holder: MemberId { node: "n".into(), uuid: MemberUuid(1), incarnation: Incarnation(2) },
            address: "h:1".into(),
            from_ms: 5,
            gap_ms: Some(0),
            previous: Some("m".into()),
            end: Some(end),
        };
        let bytes = encode_row(&row);
        assert_eq!(decode_row(&bytes), Some(row.clone()));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\"planned\":false"), "{text}");
        assert_eq!(decode_row(text.replace("renew_deadline", "bad_luck").as_bytes()), None);
        let late = text.replace("\"from_ms\":5", "\"from_ms\":18446744073709551615");
        assert_eq!(decode_row(late.as_bytes()).map(|row| row.from_ms), Some(LAST_MS), "still a date");
        row.end = None;
        assert_eq!(decode_row(&encode_row(&row)), Some(row), "an open one");
    }
}
