//! A statement cut into words, names and signs.

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Letters and digits; a keyword or a name.
    Word(String),
    /// In backticks or double quotes: a name.
    Quoted(String),
    /// In single quotes.
    Literal,
    /// One character of anything else.
    Sign(char),
}

/// Cuts a statement up. Comments are left out, but not what is executed inside `/*! ... */`.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let line = || rest.find('\n').map_or("", |end| &rest[end..]);
        rest = match c {
            c if c.is_whitespace() => after,
            '#' => line(),
            '-' if is_line_comment(rest) => line(),
            '/' if rest.starts_with("/*!") => {
                rest[3..].trim_start_matches(|c: char| c.is_ascii_digit())
            }
            // The end of an executed comment: the others end where they begin.
            '*' if rest.starts_with("*/") => &rest[2..],
            '/' if rest.starts_with("/*") => {
                rest[2..].find("*/").map_or("", |end| &rest[2 + end + 2..])
            }
            '`' | '"' | '\'' => {
                let (content, behind) = quoted(after, c);
                tokens.push(match c {
                    '\'' => Token::Literal,
                    _ => Token::Quoted(content),
                });
                behind
            }
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
            c => {
                tokens.push(Token::Sign(c));
                after
            }
        };
    }
    tokens
}

fn is_line_comment(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_whitespace()))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The content up to the closing quote, with doubled quotes undone, and what is behind it.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let behind = &text[at + c.len_utf8()..];
            if !behind.starts_with(quote) {
                return (content, behind);
            }
            chars.next();
        } else if c == '\\' && quote != '`' {
            chars.next();
            continue;
        }
        content.push(c);
    }
    (content, "")
}
