//! The shape of files: columns, lines, functions, pages, and what should not be left behind.

use super::rust::{code, code_without_tests, has_word, lines_with};
use super::tree::{File, check, files, rust_files};

const COLUMNS_MAX: usize = 100;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Characters wider than a column are counted as one, which is what an editor's ruler shows.
fn columns(file: &File) -> Vec<String> {
    let lines = file.text.lines().zip(1..);
    lines
        .map(|(line, number)| (line.chars().count(), number))
        .filter(|(columns, _)| *columns > COLUMNS_MAX)
        .map(|(columns, number)| {
            format!("{}:{number}: {columns} columns; expected {COLUMNS_MAX}", file.path)
        })
        .collect()
}

fn file_lines(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let complaint = || format!("{}: {lines} lines; split it at {FILE_LINES_MAX}", file.path);
    (lines > FILE_LINES_MAX).then(complaint).into_iter().collect()
}

fn page(file: &File) -> Vec<String> {
    let first = file.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let complaint = || format!("{}:1: begin with `//!` and what the file is for", file.path);
    (!first.starts_with("//!")).then(complaint).into_iter().collect()
}

/// Lines of code of each function, blank ones and comments not counted.
fn functions(file: &File) -> Vec<String> {
    if file.is_test() {
        return Vec::new();
    }
    let code = code_without_tests(&file.text);
    let lines: Vec<&str> = code.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| has_word(line, "fn"));
    starts
        .filter_map(|(start, _)| {
            let length = function_lines(&lines[start..]);
            (length > FUNCTION_LINES_MAX).then(|| {
                let line = start + 1;
                format!("{}:{line}: {length} lines; expected {FUNCTION_LINES_MAX}", file.path)
            })
        })
        .collect()
}

/// Lines between the braces of the body, as clippy counts them; 0 if there is no body.
fn function_lines(lines: &[&str]) -> usize {
    let (mut depth, mut count) = (0usize, 0);
    for line in lines {
        count += usize::from(depth > 0 && !line.trim().is_empty());
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return count.saturating_sub(1),
                '}' => depth -= 1,
                ';' if depth == 0 => return 0,
                _ => (),
            }
        }
    }
    count
}

/// Marks of unfinished work, in code or comments.
fn leftovers(file: &File) -> Vec<String> {
    let marks = ["TO\u{44}O", "FIXM\u{45}", "XX\u{58}", "HAC\u{4b}"];
    let macros = ["dbg!", "todo!", "unimplemented!"];
    let code = code(&file.text);
    let in_text = marks.iter().map(|mark| (*mark, lines_with(&file.text, mark)));
    let in_code = macros.iter().map(|mark| (*mark, lines_with(&code, mark)));
    in_text
        .chain(in_code)
        .flat_map(|(mark, lines)| lines.into_iter().map(move |line| (mark, line)))
        .map(|(mark, line)| format!("{}:{line}: {mark} is left", file.path))
        .collect()
}

/// Names that say nothing about what is in a file, and getters with a prefix.
fn names(file: &File) -> Vec<String> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let refused = ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "manager.rs", "misc.rs"];
    let complaint = || format!("{}: name the file after what is in it", file.path);
    let mut complaints: Vec<String> = refused.contains(&name).then(complaint).into_iter().collect();
    let getters = code(&file.text);
    let getters = getters.lines().zip(1..).filter(|(line, _)| line.contains("fn get_"));
    complaints
        .extend(getters.map(|(_, line)| format!("{}:{line}: a getter has no `get_`", file.path)));
    complaints
}

#[test]
fn no_line_is_longer_than_a_hundred_columns() {
    check(&rust_files(), columns);
    let long = format!("//! a\n// {}", "ü".repeat(97));
    assert!(columns(&File::planted("a.rs", &long)).is_empty());
    assert_eq!(columns(&File::planted("a.rs", &format!("{long}!"))).len(), 1);
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    check(&rust_files(), file_lines);
    assert!(file_lines(&File::planted("a.rs", &"a\n".repeat(600))).is_empty());
    assert_eq!(file_lines(&File::planted("a.rs", &"a\n".repeat(601))).len(), 1);
}

#[test]
fn every_file_begins_with_its_page() {
    check(&rust_files(), page);
    assert!(page(&File::planted("a.rs", "\n//! A page.\nfn a() {}")).is_empty());
    assert_eq!(page(&File::planted("a.rs", "fn a() {}\n//! Too late.")).len(), 1);
}

#[test]
fn no_function_is_longer_than_seventy_lines() {
    check(&rust_files(), functions);
    let of = |lines: usize| {
        let body = "    a();\n    // A comment.\n\n".repeat(lines);
        File::planted("src/a.rs", &format!("fn short();\nfn a() {{\n{body}}}\nfn b() {{}}\n"))
    };
    assert!(functions(&of(70)).is_empty());
    assert_eq!(functions(&of(71)).len(), 1);
    let in_tests = format!("#[cfg(test)]\nmod tests {{\nfn a() {{\n{}}}\n}}", "a();\n".repeat(80));
    assert!(functions(&File::planted("src/a.rs", &in_tests)).is_empty());
}

#[test]
fn nothing_unfinished_is_left() {
    check(&rust_files(), leftovers);
    let planted = "// TO\u{44}O: later\nfn a() { dbg!(1); }\n\"dbg!\";\nmastodon();";
    assert_eq!(leftovers(&File::planted("a.rs", planted)).len(), 2);
}

#[test]
fn files_and_functions_are_named_after_what_they_are() {
    check(&files(), names);
    assert_eq!(names(&File::planted("src/util.rs", "fn get_it() {}")).len(), 2);
    assert!(names(&File::planted("src/get_it.rs", "fn it() {}")).is_empty());
}
