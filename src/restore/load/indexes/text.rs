//! The keys of a CREATE TABLE statement, as the text that makes each again.
//!
//! The statement is one that a server printed. Where it is not understood there is no answer, and
//! nothing is done with the table: it is made as it stands.

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Primary,
    Unique,
    /// Any other B-tree, and SPATIAL keys, which stand among them.
    Plain,
    Fulltext,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// As it stands in the statement: `KEY ...`.
    pub(super) definition: Vec<u8>,
    /// Whether a part of it is an expression.
    pub(super) computed: bool,
}

const STARTS: [(&[u8], Kind); 5] = [
    (b"PRIMARY KEY ", Kind::Primary),
    (b"UNIQUE KEY ", Kind::Unique),
    (b"KEY ", Kind::Plain),
    (b"SPATIAL KEY ", Kind::Plain),
    (b"FULLTEXT KEY ", Kind::Fulltext),
];

/// The keys in their order; `None` if the statement is not understood.
pub(super) fn keys(create: &[u8]) -> Option<Vec<Key>> {
    let (elements, _) = body(create)?;
    let mut keys = Vec::new();
    for element in elements {
        let Some((start, kind)) = STARTS.iter().find(|(start, _)| element.starts_with(start))
        else {
            continue;
        };
        let rest = &element[start.len()..];
        let (name, parts) = if *kind == Kind::Primary {
            ("PRIMARY".to_owned(), rest)
        } else {
            let end = end_of_quoted(rest)?;
            let name = std::str::from_utf8(&rest[1..end - 1]).ok()?;
            (name.replace("``", "`"), &rest[end..])
        };
        keys.push(Key {
            kind: *kind,
            name,
            definition: element.to_vec(),
            computed: is_computed(parts)?,
        });
    }
    Some(keys)
}

/// The statement without its moving part, the next AUTO_INCREMENT.
pub(super) fn without_auto_increment(create: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b" AUTO_INCREMENT=";
    let Some((_, end)) = body(create) else {
        return create.to_vec();
    };
    let mut at = end;
    while at < create.len() {
        let rest = &create[at..];
        if rest.starts_with(NAME) {
            let digits = rest[NAME.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            return [&create[..at], &rest[NAME.len() + digits..]].concat();
        }
        at += end_of_quoted(rest).unwrap_or(1);
    }
    create.to_vec()
}

/// What stands between the parentheses of a statement, cut at its commas, and where that ends.
fn body(create: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let mut elements = Vec::new();
    let (mut depth, mut from, mut at) = (0_u32, 0, 0);
    while at < create.len() {
        match create[at] {
            b'\'' | b'"' | b'`' => {
                at += end_of_quoted(&create[at..])?;
                continue;
            }
            b'(' => {
                depth += 1;
                if depth == 1 {
                    from = at + 1;
                }
            }
            b',' if depth == 1 => {
                elements.push(create[from..at].trim_ascii());
                from = at + 1;
            }
            b')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    elements.push(create[from..at].trim_ascii());
                    return Some((elements, at + 1));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether the parts of a key, in parentheses, have an expression among them, which stands in
/// parentheses of its own (a prefix's length stands behind a name).
fn is_computed(parts: &[u8]) -> Option<bool> {
    let (mut depth, mut before, mut at) = (0_u32, b' ', 0);
    while at < parts.len() {
        let byte = parts[at];
        match byte {
            b'\'' | b'"' | b'`' => {
                at += end_of_quoted(&parts[at..])?;
                before = byte;
                continue;
            }
            b'(' => {
                if depth == 1 && matches!(before, b'(' | b',') {
                    return Some(true);
                }
                depth += 1;
            }
            b')' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(false);
                }
            }
            _ => {}
        }
        if byte != b' ' {
            before = byte;
        }
        at += 1;
    }
    None
}

/// The length of what begins with a quote, its end included; `None` if it begins with none or has
/// no end.
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    let quote = *text.first()?;
    if !matches!(quote, b'\'' | b'"' | b'`') {
        return None;
    }
    let mut at = 1;
    while at < text.len() {
        if text[at] == quote {
            if text.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            at += 1;
        } else if text[at] == b'\\' && quote != b'`' {
            at += 1;
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE TABLE `t(,` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'a, KEY `x` (`y`)',\n  \
        `b``)` varchar(9) DEFAULT 'it''s \\'(',\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u``1` (`b``)`(3) DESC,`id`) USING BTREE COMMENT ')',\n  \
        KEY `f` ((lower(`b``)`)),`id`) /*!80000 INVISIBLE */,\n  KEY `g` (`id`,(`id` + 1)),\n  SPATIAL KEY `s` (`id`),\n  \
        FULLTEXT KEY `w` (`b``)`) /*!50100 WITH PARSER `ngram` */ ,\n  CONSTRAINT `c` CHECK ((`id` > 0))\n) ENGINE=InnoDB \
        AUTO_INCREMENT=12 COMMENT=' AUTO_INCREMENT=7'";

    #[test]
    fn keys_are_found_with_their_texts() {
        let keys = keys(CREATE.as_bytes()).expect("understood");
        let shape: Vec<(&str, Kind, bool)> = keys
            .iter()
            .map(|key| (key.name.as_str(), key.kind, key.computed))
            .collect();
        assert_eq!(
            shape,
            [
                ("PRIMARY", Kind::Primary, false),
                ("u`1", Kind::Unique, false),
                ("f", Kind::Plain, true),
                ("g", Kind::Plain, true),
                ("s", Kind::Plain, false),
                ("w", Kind::Fulltext, false),
            ]
        );
        assert_eq!(
            String::from_utf8_lossy(&keys[1].definition),
            "UNIQUE KEY `u``1` (`b``)`(3) DESC,`id`) USING BTREE COMMENT ')'"
        );
        assert_eq!(
            String::from_utf8_lossy(&keys[5].definition),
            "FULLTEXT KEY `w` (`b``)`) /*!50100 WITH PARSER `ngram` */"
        );
    }

    #[test]
    fn what_is_not_understood_has_no_answer() {
        for text in [
            "CREATE TABLE `t`",
            "CREATE TABLE `t` (\n  `a` int,\n  KEY `k` (`a`",
            "CREATE TABLE `t` (\n  `a` int,\n  KEY k (`a`)\n)",
            "CREATE TABLE `t (\n  `a` int\n)",
        ] {
            assert_eq!(keys(text.as_bytes()), None, "{text}");
        }
        for end in 0..CREATE.len() {
            // It ends somewhere, whatever is cut off.
            let _ = keys(&CREATE.as_bytes()[..end]);
            let _ = without_auto_increment(&CREATE.as_bytes()[..end]);
        }
    }

    #[test]
    fn only_the_option_of_the_table_moves() {
        let without = without_auto_increment(CREATE.as_bytes());
        assert_eq!(
            String::from_utf8_lossy(&without),
            CREATE.replacen(" AUTO_INCREMENT=12", "", 1)
        );
        let other = CREATE.replacen(" AUTO_INCREMENT=12", "", 1);
        assert_eq!(without_auto_increment(other.as_bytes()), other.as_bytes());
    }
}
