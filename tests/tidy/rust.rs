//! Rust, as far as the rules need it: which characters of a file are code.

/// `text` with every character of comments and of texts in quotes as a blank. Lines stay lines.
pub fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let length = match comment(rest).or_else(|| quoted(rest, before)) {
            Some(length) => {
                code.extend(rest[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
                length
            }
            None => {
                code.push(first);
                first.len_utf8()
            }
        };
        before = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    code
}

/// The code of a file up to its module of tests.
pub fn code_without_tests(text: &str) -> String {
    let mut code = code(text);
    let tests = code.match_indices("#[cfg(test)]").map(|(at, mark)| (at, at + mark.len()));
    let tests = tests.into_iter().find(|(_, end)| code[*end..].trim_start().starts_with("mod "));
    if let Some((at, _)) = tests {
        code.truncate(at);
    }
    code
}

/// Lines of `code`, counted from 1, that hold `word` as a whole.
pub fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let lines = code.lines().zip(1..);
    lines.filter(|(line, _)| has_word(line, word)).map(|(_, number)| number).collect()
}

/// Whether `word` stands in `line` without a letter, digit or underscore at either end of it.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let open_end = !word.ends_with(is_word);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && (open_end || !after.is_some_and(is_word))
    })
}

/// Length of the comment at the start of `rest`.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// Length of the text or the character in quotes at the start of `rest`.
fn quoted(rest: &str, before: char) -> Option<usize> {
    if rest.starts_with('"') {
        return Some(closing(rest, '"'));
    }
    if rest.starts_with('\'') {
        let mut chars = rest.chars().skip(1);
        let is_escape = chars.next()? == '\\';
        // Anything else that begins with a quote is a lifetime.
        return (is_escape || chars.next() == Some('\'')).then(|| closing(rest, '\''));
    }
    if before.is_alphanumeric() || before == '_' || !rest.starts_with('r') {
        return None;
    }
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

fn closing(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => (),
        }
    }
    rest.len()
}

#[test]
fn comments_and_texts_are_not_code() {
    let check = |text: &str, expected: &str| {
        let code = code(text);
        let words: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(words.join(" "), expected, "{text}");
        assert_eq!(code.lines().count(), text.lines().count());
    };
    check("a // b\nc", "a c");
    check("a /* b /* c */ d */ e", "a e");
    check("a \"b \\\" c\" d", "a d");
    check("a 'b' c '\\'' d", "a c d");
    check("fn a<'b>(c: &'b str)", "fn a<'b>(c: &'b str)");
    check("a r#\"b \"c\" d\"# e", "a e");
    check("for (x) \"y\" z", "for (x) z");
    check("a \"// b\nc\" d", "a d");
    let with_tests = "a\n#[cfg(test)]\nuse b;\n#[cfg(test)]\nmod tests { c }";
    assert!(code_without_tests(with_tests).trim_end().ends_with("use b;"));
}

#[test]
fn words_are_whole() {
    assert_eq!(lines_with("fs\nfsync\noffs\nuse std::fs::File;", "fs"), [1, 4]);
    assert!(has_word("std::env::var", "env::") && !has_word("myenv::var", "env::"));
}
