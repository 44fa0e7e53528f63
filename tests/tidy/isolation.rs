//! `docs/isolation.md` against the tests: every row of the catalogue is there, and every test it names is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::files::sources;

/// Faults that a host and its containers live through.
const FAULTS: [u32; 8] = [5, 6, 7, 28, 44, 46, 49, 50];

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout");
    fs::read_to_string(root.join("docs/isolation.md")).expect("the page is there")
}

fn is_row(cell: &str) -> bool {
    cell.len() == 3 && cell.starts_with(['A', 'B', 'F']) && cell[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Rows by id, each with its whole line.
fn rows(page: &str) -> BTreeMap<String, &str> {
    let row = |line| -> Option<(String, &str)> {
        let id = str::strip_prefix(line, "| ")?.split(" |").next()?;
        is_row(id).then(|| (id.to_owned(), line))
    };
    page.lines().filter_map(row).collect()
}

/// What looks like the name of a test.
fn tests_named(line: &str) -> Vec<&str> {
    let name = |text: &&str| {
        text.contains('_') && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    line.split('`').skip(1).step_by(2).filter(name).filter(|text| text.len() > 13).collect()
}

/// Names of all functions that are tests.
fn tests_that_are() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in sources() {
        let text = fs::read_to_string(&path).expect("text");
        let (mut after_mark, mut in_list) = (false, false);
        for line in text.lines().map(str::trim) {
            // Tests that are run in two ways are listed once for both.
            in_list = line == "started_by_both! {" || (in_list && line != "}");
            if let Some(name) = line.strip_suffix(',').filter(|_| in_list) {
                names.insert(name.to_owned());
            }
            if line.starts_with("#[") {
                after_mark |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            } else if let Some((_, name)) = line.split_once("fn ") {
                if std::mem::take(&mut after_mark) {
                    names.insert(name.split(['(', '<']).next().unwrap_or_default().to_owned());
                }
            } else {
                after_mark = false;
            }
        }
    }
    assert!(names.len() > 400, "only {} tests were found", names.len());
    names
}

#[test]
fn every_row_of_the_catalogue_is_there_and_names_a_test() {
    let page = page();
    let rows = rows(&page);
    let expected = (30..70).map(|n| format!("A{n}")).chain((1..27).map(|n| format!("B{n:02}")));
    let expected: BTreeSet<String> = expected.chain(FAULTS.map(|n| format!("F{n:02}"))).collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), expected, "rows on the left, the catalogue on the right");
    for (id, line) in rows {
        assert!(!tests_named(line).is_empty(), "{id} names no test");
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{id} leaves a column empty: {line}");
    }
}

#[test]
fn every_test_the_page_names_is_one() {
    let (page, are) = (page(), tests_that_are());
    let missing: Vec<_> = page.lines().flat_map(tests_named).filter(|name| !are.contains(*name)).collect();
    assert_eq!(missing, [""; 0]);
}
