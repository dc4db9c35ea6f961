//! Markdown tables.

/// A table that grows line by line.
#[derive(Debug)]
pub(super) struct Table {
    text: String,
    columns: usize,
}

impl Table {
    /// A table with these headings; all columns but the first `left` ones hold numbers.
    pub(super) fn new(headings: &[&str], left: usize) -> Self {
        let mut table = Self {
            text: String::new(),
            columns: headings.len(),
        };
        table.line(headings.iter().map(|heading| (*heading).to_owned()));
        let rules = (0..headings.len()).map(|column| if column < left { "---" } else { "--:" });
        table.text.push('|');
        for rule in rules {
            table.text.push_str(rule);
            table.text.push('|');
        }
        table.text.push('\n');
        table
    }

    /// Adds a line; cells that are left out stay empty.
    pub(super) fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells = cells.into_iter();
        self.text.push('|');
        for _ in 0..self.columns {
            let cell = cells.next().unwrap_or_default().replace('|', "\\|");
            self.text.push(' ');
            self.text.push_str(&cell);
            self.text.push_str(if cell.is_empty() { "|" } else { " |" });
        }
        self.text.push('\n');
    }

    /// The whole table.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_markdown_with_numbers_to_the_right() {
        let mut table = Table::new(&["row", "a", "b"], 1);
        table.line(["x|y".to_owned(), "1".to_owned()]);
        assert_eq!(
            table.finish(),
            "| row | a | b |\n|---|--:|--:|\n| x\\|y | 1 | |\n"
        );
    }
}
