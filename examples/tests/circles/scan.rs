//! Reads out of one module's tokens what it declares and what it names.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's own code, without that of its children and without what is built for tests only.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The modules it declares; the body of those that are written in place.
    pub children: Vec<(String, Option<TokenStream>)>,
    /// What its `use` items bring in.
    pub imports: Vec<Import>,
    /// The paths of two segments and more in its code.
    pub paths: Vec<Vec<String>>,
    /// Every identifier in its code, `use` items left out.
    pub names: BTreeSet<String>,
}

/// One name that a `use` item brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name it has in this module: `*` for all names of another.
    pub name: String,
    /// Where it comes from.
    pub path: Vec<String>,
    /// It is `pub` in some degree: handed on to others.
    pub is_reexport: bool,
}

/// Begins of items that end with a semicolon or a block.
const ITEMS: [&str; 13] = [
    "pub", "fn", "impl", "struct", "enum", "union", "mod", "trait", "const", "static", "type",
    "unsafe", "async",
];

pub(crate) fn scan(code: TokenStream) -> Scan {
    let mut scan = Scan::default();
    scan.stream(code);
    scan
}

impl Scan {
    fn stream(&mut self, stream: TokenStream) {
        let tokens: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        let mut is_public = false;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    at = if is_for_tests(&tokens[at..]) { skip_item(&tokens, at) } else { at + 1 };
                }
                TokenTree::Ident(ident) if ident == "pub" => {
                    let scoped = is_group(tokens.get(at + 1), Delimiter::Parenthesis);
                    at += if scoped { 2 } else { 1 };
                    is_public = true;
                    continue;
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let end = at + 1 + until_semicolon(&tokens[at + 1..]);
                    self.uses(&tokens[at + 1..end], &[], is_public);
                    at = end;
                }
                TokenTree::Ident(ident) if ident == "mod" => at = self.module(&tokens, at + 1),
                TokenTree::Ident(_) => at = self.path(&tokens, at),
                TokenTree::Group(group) => {
                    self.stream(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
            is_public = false;
        }
    }

    /// `name;` or `name { … }`.
    fn module(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(at) else { return at };
        let body = match tokens.get(at + 1) {
            Some(TokenTree::Group(group)) => Some(group.stream()),
            _ => None,
        };
        self.children.push((name.to_string(), body));
        at + 2
    }

    /// An identifier, and all that `::` joins to it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize) -> usize {
        let mut segments = Vec::new();
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            segments.push(ident.to_string());
            at += 1;
            if !is_colons(&tokens[at..]) {
                break;
            }
            at += 2;
        }
        self.names.extend(segments.iter().cloned());
        if segments.len() > 1 {
            self.paths.push(segments);
        }
        at
    }

    /// The tree of a `use` item below `prefix`.
    fn uses(&mut self, tokens: &[TokenTree], prefix: &[String], is_reexport: bool) {
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
        for tree in tokens.split(is_comma) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut tree = tree.iter();
            while let Some(token) = tree.next() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => {
                        name = tree.next().map(ToString::to_string);
                    }
                    TokenTree::Ident(ident) if ident == "self" && !path.is_empty() => {}
                    TokenTree::Ident(ident) => path.push(ident.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => name = Some("*".into()),
                    TokenTree::Group(group) => {
                        let group: Vec<_> = group.stream().into_iter().collect();
                        self.uses(&group, &path, is_reexport);
                        path.clear();
                    }
                    _ => {}
                }
            }
            if let Some(last) = path.last().cloned() {
                self.imports.push(Import { name: name.unwrap_or(last), path, is_reexport });
            }
        }
    }
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ':');
    tokens.len() > 2 && tokens[..2].iter().all(is_colon)
}

fn until_semicolon(tokens: &[TokenTree]) -> usize {
    let is_semicolon =
        |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ';');
    tokens.iter().position(is_semicolon).unwrap_or(tokens.len())
}

/// `#[cfg(test)]`, alone or with further conditions that must hold too.
fn is_for_tests(tokens: &[TokenTree]) -> bool {
    let Some(TokenTree::Group(attribute)) = tokens.get(1) else { return false };
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The place after the item, field or statement whose attribute stands at `at`.
fn skip_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == '#') {
        at += 2;
    }
    let visibility =
        |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Ident(i)) if i == "pub");
    if visibility(tokens.get(at)) {
        at += if is_group(tokens.get(at + 1), Delimiter::Parenthesis) { 2 } else { 1 };
    }
    let first = tokens.get(at).map(ToString::to_string).unwrap_or_default();
    let is_item = ITEMS.contains(&first.as_str());
    let is_statement = matches!(first.as_str(), "use" | "let");
    while let Some(token) = tokens.get(at) {
        at += 1;
        let ends = match token {
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => true,
                ',' => !is_item && !is_statement,
                _ => false,
            },
            TokenTree::Group(group) => is_item && group.delimiter() == Delimiter::Brace,
            _ => false,
        };
        if ends {
            break;
        }
    }
    at
}
