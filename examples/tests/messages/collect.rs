//! Finds the messages in a source file, among its tokens.

use std::fmt;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// How a message reaches the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    /// The text of an error.
    Because,
    /// A part of some other message.
    Text,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Because => "because",
            Self::Text => "text",
        })
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub level: Level,
    pub text: String,
    /// It has a field or a value in it.
    pub has_values: bool,
    /// Its text has the error's own source in it.
    pub repeats_source: bool,
}

/// Macros and calls whose text no operator sees.
const UNSEEN: [&str; 9] = [
    "expect",
    "panic",
    "unreachable",
    "assert",
    "assert_eq",
    "debug_assert",
    "debug_assert_eq",
    "cfg",
    "concat",
];

/// Everything in `source` that has a word's end in it, but for its tests and documentation.
pub(crate) fn collect(source: &str) -> Vec<Message> {
    let tokens: TokenStream = source.parse().expect("a source file of Rust");
    let mut messages = Vec::new();
    walk(tokens, Level::Text, &mut messages);
    messages
}

fn walk(tokens: TokenStream, level: Level, messages: &mut Vec<Message>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let has_values = tokens.len() > 1;
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        at += match rest {
            // `#[…]`, then `#![…]`
            [TokenTree::Punct(hash), TokenTree::Group(group), ..] if hash.as_char() == '#' => {
                2 + attribute(group.stream(), &rest[2..], messages)
            }
            [TokenTree::Punct(hash), TokenTree::Punct(bang), TokenTree::Group(_), ..]
                if hash.as_char() == '#' && bang.as_char() == '!' =>
            {
                3
            }
            // `name!(…)`
            [TokenTree::Ident(name), TokenTree::Punct(bang), TokenTree::Group(group), ..]
                if bang.as_char() == '!' =>
            {
                invocation(&name.to_string(), level, group.stream(), messages);
                3
            }
            // `name(…)`
            [TokenTree::Ident(name), TokenTree::Group(group), ..]
                if group.delimiter() == Delimiter::Parenthesis =>
            {
                if !UNSEEN.contains(&name.to_string().as_str()) {
                    walk(group.stream(), Level::Text, messages);
                }
                2
            }
            [TokenTree::Group(group), ..] => {
                walk(group.stream(), Level::Text, messages);
                1
            }
            [TokenTree::Literal(literal), ..] => {
                if let Some(text) = text(&literal.to_string()) {
                    let has_values = has_values || text.contains('{');
                    messages.push(Message { level, text, has_values, repeats_source: false });
                }
                1
            }
            _ => 1,
        };
    }
}

/// An attribute; gives how many of the tokens behind it are to be left out.
fn attribute(inner: TokenStream, behind: &[TokenTree], messages: &mut Vec<Message>) -> usize {
    let inner: Vec<_> = inner.into_iter().collect();
    match &inner[..] {
        [TokenTree::Ident(name), TokenTree::Group(group)] if name == "error" => {
            let before = messages.len();
            walk(group.stream(), Level::Because, messages);
            // The variant's fields, or the structure's.
            let fields = behind.iter().take(12).find_map(|token| match token {
                TokenTree::Group(group) if group.delimiter() != Delimiter::Bracket => {
                    Some(group.stream().to_string())
                }
                _ => None,
            });
            let fields = fields.unwrap_or_default();
            let arguments: TokenStream = group.stream().into_iter().skip(1).collect();
            let arguments = arguments.to_string();
            for message in &mut messages[before..] {
                message.repeats_source = shows_source(&message.text, &arguments, &fields);
            }
            0
        }
        // What is built for tests only: up to the end of the item.
        [TokenTree::Ident(name), TokenTree::Group(group)]
            if name == "cfg" && is_for_tests(&group.stream().to_string()) =>
        {
            let end = behind.iter().position(|token| match token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Punct(punct) => punct.as_char() == ';',
                _ => false,
            });
            end.map_or(0, |end| end + 1)
        }
        _ => 0,
    }
}

/// Whether `text`, or one of the arguments behind it, shows a field that is the error's source, or
/// the system's error.
fn shows_source(text: &str, arguments: &str, fields: &str) -> bool {
    let [arguments, fields] =
        [arguments, fields].map(|tokens| tokens.split_whitespace().collect::<String>());
    let in_text = text.split('{').skip(1).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        &rest[..end.unwrap_or(rest.len())]
    });
    let behind = arguments.split(',').map(|argument| {
        let value = argument.rsplit('=').next().unwrap_or_default();
        let value = value.strip_prefix("chain(").map_or(value, |inner| inner.trim_end_matches(')'));
        value.trim_start_matches(['&', '.'])
    });
    in_text.chain(behind).any(|name| match name {
        "0" => ["#[from]", "#[source]", "io::Error"].iter().any(|part| fields.contains(part)),
        "" => false,
        "source" => fields.contains("source:"),
        name => fields.contains(&format!("{name}:io::Error")),
    })
}

fn is_for_tests(condition: &str) -> bool {
    condition.starts_with("test") || condition.starts_with("all (test")
}

fn invocation(name: &str, outer: Level, inner: TokenStream, messages: &mut Vec<Message>) {
    let level = match name {
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" | "trace" => Level::Debug,
        "format" | "format_args" | "write" | "writeln" => outer,
        "bail" | "anyhow" | "ensure" => Level::Because,
        name if UNSEEN.contains(&name) => return,
        _ => Level::Text,
    };
    walk(inner, level, messages);
}

/// The value of a string literal with more than one word.
fn text(literal: &str) -> Option<String> {
    let text = syn::parse_str::<syn::LitStr>(literal).ok()?.value();
    text.trim().contains(' ').then(|| text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(source: &str) -> Vec<(Level, String, bool)> {
        let messages = collect(source).into_iter();
        messages.map(|message| (message.level, message.text, message.has_values)).collect()
    }

    #[test]
    fn levels_follow_from_where_a_message_stands() {
        let source = r#"
            //! A file's own comment.
            /// A comment of several words.
            fn f() {
                warn!(id = 1, "a warning \
                    in two lines");
                error!("no value");
                let _ = format!("{x} as it is").expect("not for operators");
                bail!("it ends {here}");
                call("a remedy", 1).context("why it ended");
                let one = "word";
            }
            #[cfg(test)]
            mod tests { fn t() { warn!("of a test"); } }
            fn g() -> &'static str { "after the tests" }
        "#;
        let expected = [
            (Level::Warn, "a warning in two lines", true),
            (Level::Error, "no value", false),
            (Level::Text, "{x} as it is", true),
            (Level::Because, "it ends {here}", true),
            (Level::Text, "a remedy", true),
            (Level::Text, "why it ended", false),
            (Level::Text, "after the tests", false),
        ];
        let expected = expected.map(|(level, text, values)| (level, text.to_owned(), values));
        assert_eq!(seen(source), expected);
    }

    #[test]
    fn an_error_that_tells_its_source_twice_is_found() {
        let found = |source: &str| collect(source)[0].repeats_source;
        assert!(found(r#"enum E { #[error("it broke: {source}")] V { source: io::Error } }"#));
        assert!(!found(r#"enum E { #[error("it broke")] V { source: io::Error } }"#));
        assert!(found(r#"enum E { #[error("it broke: {0}")] V(io::Error) }"#));
        assert!(found(r#"enum E { #[error("it broke: {0}")] V(#[from] Other) }"#));
        assert!(!found(r#"enum E { #[error("queue {0} broke")] V(u16) }"#));
        assert!(found(r#"enum E { #[error("it broke: {}", .0)] V(#[from] Other) }"#));
        assert!(found(r#"enum E { #[error("it broke: {why}", why = .0)] V(io::Error) }"#));
        assert!(found(r#"enum E { #[error("it broke: {}", chain(source))] V { source: Other } }"#));
        assert!(!found(r#"enum E { #[error("it broke{}", Advice(.0))] V(#[from] io::Error) }"#));
        assert!(!found(r#"enum E { #[error("{} broke", .0)] V(u16) }"#));
        assert!(found(r#"#[error("{what}: {error}")] struct S { what: u8, error: io::Error }"#));
    }
}
