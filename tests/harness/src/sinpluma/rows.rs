//! Rows as SQL literals.

use mysql_async::Value;
use serde_json::json;

use super::words;
use crate::random::Random;

pub(super) const USER: &str = "id, handle, email, display_name, biography, password_hash, locale, role, settings, born, \
    is_active, created_at, updated_at";
pub(super) const NOTEBOOK: &str =
    "id, user_id, genre_id, title, synopsis, cover, visibility, price, created_at, updated_at";
pub(super) const PAGE: &str = "notebook_id, position, title, content, draft, mood, edited_at";
pub(super) const READING: &str =
    "user_id, page_id, progress, stars, time_spent, note, started_at, finished_at";
pub(super) const TAGS: &str = "id, label, first_used";
pub(super) const HAS_TAGS: &str = "notebook_id, tag_id, tagged_by, tagged_at";

/// The literals of a page's columns.
pub(super) struct Page {
    notebook: u64,
    position: Option<u64>,
    pub(super) title: String,
    pub(super) content: String,
    pub(super) draft: String,
    pub(super) mood: String,
    pub(super) edited_at: String,
}

impl Page {
    pub(super) fn values(&self) -> String {
        let position = self
            .position
            .map_or_else(|| "NULL".to_owned(), |position| position.to_string());
        format!(
            "({}, {position}, {}, {}, {}, {}, {})",
            self.notebook, self.title, self.content, self.draft, self.mood, self.edited_at
        )
    }
}

/// A string as a literal that does not depend on the session's character set.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).as_sql(false)
}

/// A text, or NULL, or an empty string.
pub(super) fn optional(random: &mut Random, text: impl Fn(&mut Random) -> String) -> String {
    match random.below(6) {
        0 => "NULL".to_owned(),
        1 => "''".to_owned(),
        _ => literal(&text(random)),
    }
}

pub(super) fn user(random: &mut Random, id: u64) -> String {
    let name = words::name(random);
    let born = match random.below(4) {
        0 => "NULL".to_owned(),
        year => format!(
            "'{}-{:02}-{:02}'",
            1950 + year * 15,
            1 + random.below(12),
            1 + random.below(28)
        ),
    };
    format!(
        "({id}, 'writer{id}', 'writer{id}@sinpluma.example', {}, {}, X'{}', {}, {}, {}, {born}, b'{}', {}, {})",
        literal(&name),
        optional(random, words::paragraph),
        hex(random, 32),
        random.pick(&["'en'", "'es'", "'ja'", "'pt-BR'"]),
        random.pick(&["'reader'", "'writer'", "'editor'", "'admin'"]),
        random.pick(&[
            "''",
            "'public'",
            "'newsletter,dark'",
            "'newsletter,dark,public,beta'"
        ]),
        u8::from(!random.once_in(9)),
        time(random, 6),
        time(random, 6),
    )
}

pub(super) fn notebook(random: &mut Random, id: u64, users: u64) -> String {
    let genre = if random.once_in(7) {
        "NULL".to_owned()
    } else {
        (1 + random.below(10)).to_string()
    };
    let cover = if random.once_in(3) {
        let length = 20 + random.below(300);
        format!("X'{}'", hex(random, length))
    } else {
        "NULL".to_owned()
    };
    let price = if random.once_in(2) {
        "NULL".to_owned()
    } else {
        format!("{}.{:02}", random.below(90), random.below(100))
    };
    format!(
        "({id}, {}, {genre}, {}, {}, {cover}, {}, {price}, {}, {})",
        1 + random.below(users),
        literal(&words::sentence(random)),
        optional(random, words::paragraph),
        random.pick(&["'private'", "'link'", "'public'"]),
        time(random, 0),
        time(random, 0),
    )
}

pub(super) fn page(random: &mut Random, notebook: u64, position: Option<u64>) -> Page {
    let blocks: Vec<_> = (0..=random.below(4))
        .map(|_| match random.below(4) {
            0 => json!({"type": "quote", "text": words::sentence(random), "by": words::name(random)}),
            1 => json!({"type": "rule"}),
            _ => json!({"type": "paragraph", "text": words::paragraph(random), "bold": random.once_in(2)}),
        })
        .collect();
    let content = json!({
        "lang": random.pick(&["en", "es", "ja", "pt"]),
        "words": random.below(900),
        "ratio": random.below(1000) as f64 / 8.0,
        "big": i64::MAX,
        "nothing": null,
        "blocks": blocks,
    });
    Page {
        notebook,
        position,
        title: optional(random, words::sentence),
        content: literal(&content.to_string()),
        draft: optional(random, words::paragraph),
        // Thirds, so that the digits do not end.
        mood: if random.once_in(4) {
            "NULL".to_owned()
        } else {
            format!("{:e}", random.below(10_000) as f64 / 3.0)
        },
        edited_at: time(random, 3),
    }
}

pub(super) fn readings(random: &mut Random, user: u64, pages: u64) -> Vec<String> {
    let count = random.below(12);
    let stride = 1 + random.below(pages / 12 + 1);
    let first = 1 + random.below(pages);
    (0..count)
        .map(|n| {
            let page = (first + n * stride) % pages + 1;
            let stars = if random.once_in(3) {
                "NULL".to_owned()
            } else {
                random.below(6).to_string()
            };
            let spent = match random.below(3) {
                0 => "NULL".to_owned(),
                1 => format!("'-00:{:02}:07.25'", random.below(60)),
                _ => format!("'{:02}:{:02}:59.99'", random.below(800), random.below(60)),
            };
            let finished = if random.once_in(2) {
                time(random, 6)
            } else {
                "NULL".to_owned()
            };
            format!(
                "({user}, {page}, {}, {stars}, {spent}, {}, {}, {finished})",
                random.below(1000) as f64 / 1001.0,
                optional(random, words::sentence),
                time(random, 6),
            )
        })
        .collect()
}

pub(super) fn tag(random: &mut Random, id: u64) -> String {
    let year = if random.once_in(5) {
        "NULL".to_owned()
    } else {
        (1970 + random.below(150)).to_string()
    };
    format!(
        "({id}, {}, {year})",
        literal(&format!("{} {id}", words::word(random)))
    )
}

pub(super) fn links(random: &mut Random, notebook: u64, tags: u64, users: u64) -> Vec<String> {
    let first = random.below(tags);
    (0..random.below(5))
        .map(|n| {
            let by = if random.once_in(4) {
                "NULL".to_owned()
            } else {
                (1 + random.below(users)).to_string()
            };
            format!(
                "({notebook}, {}, {by}, {})",
                (first + n * 7) % tags + 1,
                time(random, 0)
            )
        })
        .collect()
}

fn hex(random: &mut Random, bytes: u64) -> String {
    (0..bytes)
        .map(|_| format!("{:02X}", random.below(256)))
        .collect()
}

/// A time in 2025 with this many digits after the second.
fn time(random: &mut Random, digits: usize) -> String {
    let fraction = format!("{:06}", random.below(1_000_000));
    let dot = if digits == 0 { "" } else { "." };
    format!(
        "'2025-{:02}-{:02} {:02}:{:02}:{:02}{dot}{}'",
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60),
        &fraction[..digits]
    )
}
