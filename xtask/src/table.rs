//! A borderless text table, as `kv status` prints it: two blanks in front, two between columns.

const MARGIN: &str = "  ";
const GAP: &str = "  ";

/// How the cells of a column stand under their heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names and addresses.
    Left,
    /// Numbers.
    Right,
}

/// Lays rows out under their headings, one line each, without trailing blanks.
///
/// A row shorter than the headings ends early.
pub(crate) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let lines = || std::iter::once(&headings).chain(rows);
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| lines().map(|row| width(row.get(index))).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in lines() {
        let cells: Vec<String> = row
            .iter()
            .zip(columns)
            .zip(&widths)
            .map(|((cell, (_, align)), &width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(MARGIN);
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

fn width(cell: Option<&String>) -> usize {
    cell.map_or(0, |cell| cell.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let columns = [
            ("NODE", Align::Left),
            ("ZONE", Align::Left),
            ("PID", Align::Right),
            ("READY", Align::Left),
        ];
        let rows = vec![
            vec!["n1".into(), "a".into(), "20411".into(), "0.29s".into()],
            vec!["n10".into(), "b".into(), "–".into(), "died".into()],
        ];
        assert_eq!(
            render(&columns, &rows),
            "  NODE  ZONE    PID  READY\n  n1    a     20411  0.29s\n  n10   b         –  died\n"
        );
    }

    #[test]
    fn no_line_ends_in_blanks() {
        let columns = [("A", Align::Left), ("LONG", Align::Left)];
        let text = render(&columns, &[vec!["wide cell".into(), "x".into()]]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }
}
