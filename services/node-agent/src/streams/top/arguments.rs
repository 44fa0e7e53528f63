//! What arguments of `ps` ask for. dockerd runs the host's `ps` with them; here they are read by ps'
//! own rules into columns and an order, and nothing is run. All processes of the container are shown
//! whatever is selected, as with dockerd. Pure.

use model::{Error, Result};

use super::column::{self, Column, Shown};

/// What to show.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) columns: Vec<Shown>,
    pub(super) order: Order,
}

/// In which order.
#[derive(Debug, PartialEq)]
pub(super) enum Order {
    /// By number.
    Pid,
    /// Children under their parents, with lines drawn between them or not.
    Tree {
        /// `\_ ` before the command.
        drawn: bool,
    },
    /// By columns, each upwards or downwards.
    Keys(Vec<(Column, bool)>),
}

/// Which layout, before it is known what else is asked for.
#[derive(Default)]
struct Layout {
    full: bool,
    extra_full: bool,
    long: bool,
    jobs: bool,
    no_flags: bool,
    bsd: bool,
    user: bool,
    listed: Vec<Shown>,
}

/// dockerd hands on what ps says with this before it.
fn ps(text: impl std::fmt::Display) -> Error {
    Error::Failed(format!("ps: error: {text}"))
}

fn unavailable(option: &str) -> Error {
    Error::InvalidArgument(format!("ps option {option:?} is not available on Wharfage: ps is not run on its hosts"))
}

/// Reads arguments; empty ones are `-ef`.
pub(super) fn parse(ps_args: &str) -> Result<Asked> {
    let ps_args = if ps_args.trim().is_empty() { "-ef" } else { ps_args };
    let mut words = ps_args.split_whitespace();
    let (mut layout, mut order) = (Layout::default(), Order::Pid);
    while let Some(word) = words.next() {
        if let Some(option) = word.strip_prefix("--") {
            long(option, &mut words, &mut layout, &mut order)?;
        } else if let Some(letters) = word.strip_prefix('-') {
            // As ps does: `-aux` and `-x` are no UNIX options, so they are read as `aux` and `x`.
            if letters.contains('x') || (letters.starts_with('a') && letters.contains('u')) {
                bsd(letters, &mut words, &mut layout, &mut order)?;
            } else {
                unix(letters, &mut words, &mut layout, &mut order)?;
            }
        } else {
            bsd(word, &mut words, &mut layout, &mut order)?;
        }
    }
    let columns = layout.columns()?;
    if !columns.iter().any(|shown| shown.title == "PID") {
        return Err(Error::Failed("Couldn't find PID field in ps output".into()));
    }
    Ok(Asked { columns, order })
}

type Words<'a> = std::str::SplitWhitespace<'a>;

fn unix(letters: &str, words: &mut Words<'_>, layout: &mut Layout, order: &mut Order) -> Result<()> {
    for (at, letter) in letters.char_indices() {
        match letter {
            'e' | 'A' | 'a' | 'd' | 'w' | 'c' => {}
            'f' => layout.full = true,
            'F' => (layout.full, layout.extra_full) = (true, true),
            'l' => layout.long = true,
            'j' => layout.jobs = true,
            'y' => layout.no_flags = true,
            'H' => *order = Order::Tree { drawn: false },
            'o' => return layout.list(&rest(letters, at, words)?),
            'C' | 'G' | 'g' | 'p' | 'q' | 's' | 't' | 'U' | 'u' | 'N' | 'L' | 'T' | 'm' | 'M' | 'O' | 'P' | 'Z'
            | 'V' => {
                return Err(unavailable(&format!("-{letter}")));
            }
            _ => return Err(ps("unsupported SysV option")),
        }
    }
    Ok(())
}

fn bsd(letters: &str, words: &mut Words<'_>, layout: &mut Layout, order: &mut Order) -> Result<()> {
    layout.bsd = true;
    for (at, letter) in letters.char_indices() {
        match letter {
            'a' | 'x' | 'w' | 'g' | 'n' | 'S' => {}
            // The environment of the processes is theirs alone.
            'e' => return Err(unavailable("e")),
            'u' => layout.user = true,
            'l' => layout.long = true,
            'j' => layout.jobs = true,
            'f' => *order = Order::Tree { drawn: true },
            'o' => return layout.list(&rest(letters, at, words)?),
            'k' => {
                *order = sorted(&rest(letters, at, words)?)?;
                return Ok(());
            }
            'h' => return Err(Error::Failed("Couldn't find PID field in ps output".into())),
            'c' | 'H' | 'L' | 'm' | 'M' | 'N' | 'O' | 'p' | 'q' | 'r' | 's' | 't' | 'T' | 'U' | 'v' | 'V' | 'X'
            | 'Z' => {
                return Err(unavailable(&letter.to_string()));
            }
            _ => return Err(ps("unsupported option (BSD syntax)")),
        }
    }
    Ok(())
}

fn long(option: &str, words: &mut Words<'_>, layout: &mut Layout, order: &mut Order) -> Result<()> {
    let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
    let mut value = || {
        let given = value.or_else(|| words.next());
        given.map(str::to_owned).ok_or_else(|| ps("list of process sort or format specifiers must follow"))
    };
    match name {
        "format" => layout.list(&value()?),
        "sort" => {
            *order = sorted(&value()?)?;
            Ok(())
        }
        "forest" => {
            *order = Order::Tree { drawn: true };
            Ok(())
        }
        "headers" | "width" | "columns" | "cols" | "rows" | "lines" | "cumulative" => Err(unavailable(option)),
        "no-headers" | "no-heading" | "noheaders" | "noheading" => {
            Err(Error::Failed("Couldn't find PID field in ps output".into()))
        }
        _ => Err(ps("unknown gnu long option")),
    }
}

/// What follows an option letter: the rest of its word, or the next one.
fn rest(letters: &str, at: usize, words: &mut Words<'_>) -> Result<String> {
    let own = &letters[at + 1..];
    let given = if own.is_empty() { words.next() } else { Some(own) };
    given.map(str::to_owned).ok_or_else(|| ps("format specification must follow -o"))
}

fn sorted(keys: &str) -> Result<Order> {
    let key = |written: &str| {
        let (bare, downwards) = match written.as_bytes().first() {
            Some(b'-') => (&written[1..], true),
            Some(b'+') => (&written[1..], false),
            Some(_) | None => (written, false),
        };
        let found = column::named(bare).ok_or_else(|| ps("unknown sort specifier"))?;
        Ok((found.column, downwards))
    };
    keys.split(',').filter(|k| !k.is_empty()).map(key).collect::<Result<_>>().map(Order::Keys)
}

impl Layout {
    /// `pid,comm` or `pid,comm=NAME`: a title of one's own ends the list.
    fn list(&mut self, written: &str) -> Result<()> {
        let mut left = written;
        while !left.is_empty() {
            let end = left.find(',').unwrap_or(left.len());
            let (word, title) = match left.find('=') {
                Some(equals) if equals < end => {
                    let title = left[equals + 1..].to_owned();
                    (std::mem::take(&mut left).split('=').next().unwrap_or_default(), Some(title))
                }
                Some(_) | None => {
                    let word = &left[..end];
                    left = left.get(end + 1..).unwrap_or_default();
                    (word, None)
                }
            };
            let unknown = || ps(format_args!("unknown user-defined format specifier \"{word}\""));
            let mut shown = column::named(word).ok_or_else(unknown)?;
            if let Some(title) = title {
                // Only a PID may be called PID: the list of processes is found by it.
                if title.starts_with("PID") && word != "pid" {
                    return Err(Error::Failed(format!("specifying \"{word}={title}\" is not allowed")));
                }
                shown.title = title;
            }
            self.listed.push(shown);
        }
        Ok(())
    }

    fn columns(self) -> Result<Vec<Shown>> {
        let presets = self.full || self.long || self.jobs || self.user;
        if !self.listed.is_empty() {
            return if presets { Err(ps("conflicting format options")) } else { Ok(self.listed) };
        }
        let names = match (self.bsd, self.user, self.long, self.jobs, self.full) {
            (true, true, false, false, _) => {
                "euser=USER pid pcpu pmem vsz rss tname=TTY stat bsdstart=START bsdtime=TIME args"
            }
            (true, false, true, false, _) => {
                "f uid pid ppid priority=PRI ni vsz rss wchan stat tname=TTY bsdtime=TIME args"
            }
            (true, false, false, true, _) => "ppid pid pgid sid tname=TTY tpgid stat uid bsdtime=TIME args",
            (true, false, false, false, _) => "pid tname=TTY stat bsdtime=TIME args",
            (false, _, true, false, false) if self.no_flags => {
                "s uid pid ppid c opri=PRI ni rss sz wchan tname=TTY time comm=CMD"
            }
            (false, _, true, false, false) => "f s uid pid ppid c opri=PRI ni addr sz wchan tname=TTY time comm=CMD",
            (false, _, true, false, true) => {
                "f s euser=UID pid ppid c opri=PRI ni addr sz wchan stime tname=TTY time cmd"
            }
            (false, _, false, true, false) => "pid pgid sid tname=TTY time comm=CMD",
            (false, _, false, true, true) => "euser=UID pid ppid pgid sid c stime tname=TTY time cmd",
            (false, _, false, false, true) if self.extra_full => {
                "euser=UID pid ppid c sz rss psr stime tname=TTY time cmd"
            }
            (false, _, false, false, true) => "euser=UID pid ppid c stime tname=TTY time cmd",
            (false, _, false, false, false) => "pid tname=TTY time comm=CMD",
            (true, true, ..) | (_, _, true, true, _) => return Err(ps("conflicting format options")),
        };
        let column = |word: &str| {
            let (name, title) = word.split_once('=').unwrap_or((word, ""));
            let mut shown = column::named(name).ok_or_else(|| Error::Internal(format!("no column {name:?}")))?;
            if !title.is_empty() {
                title.clone_into(&mut shown.title);
            }
            Ok(shown)
        };
        names.split(' ').map(column).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(ps_args: &str) -> String {
        let asked = parse(ps_args).unwrap_or_else(|e| panic!("{ps_args}: {e}"));
        asked.columns.iter().map(|shown| shown.title.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn refusal(ps_args: &str) -> String {
        parse(ps_args).expect_err("refused").to_string()
    }

    #[test]
    fn the_layouts_are_those_of_ps() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        for (ps_args, expected) in [
            ("", full),
            ("-ef", full),
            ("-e -f", full),
            ("-e", "PID TTY TIME CMD"),
            ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-x", "PID TTY STAT TIME COMMAND"),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-eF", "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
            ("-el", "F S UID PID PPID C PRI NI ADDR SZ WCHAN TTY TIME CMD"),
            ("-ely", "S UID PID PPID C PRI NI RSS SZ WCHAN TTY TIME CMD"),
            ("-ej", "PID PGID SID TTY TIME CMD"),
            ("-efj", "UID PID PPID PGID SID C STIME TTY TIME CMD"),
            ("xl", "F UID PID PPID PRI NI VSZ RSS WCHAN STAT TTY TIME COMMAND"),
            ("-o pid,ppid,user,comm,args", "PID PPID USER COMMAND COMMAND"),
            ("-eo pid -o pcpu,etime", "PID %CPU ELAPSED"),
            ("xo pid,cmd", "PID CMD"),
            ("-o pid,comm=What", "PID What"),
            ("--format=pid,rss --sort=-rss", "PID RSS"),
        ] {
            assert_eq!(titles(ps_args), expected, "{ps_args}");
        }
    }

    #[test]
    fn what_ps_does_not_understand_is_refused_in_its_words() {
        assert_eq!(refusal("-o pid,foo"), "ps: error: unknown user-defined format specifier \"foo\"");
        assert_eq!(refusal("--bad"), "ps: error: unknown gnu long option");
        assert_eq!(refusal("-ef -o pid"), "ps: error: conflicting format options");
        assert_eq!(refusal("-o"), "ps: error: format specification must follow -o");
        assert_eq!(refusal("-ek"), "ps: error: unsupported SysV option");
        assert_eq!(refusal("-o comm"), "Couldn't find PID field in ps output");
        assert_eq!(refusal("-o ppid=PID"), "specifying \"ppid=PID\" is not allowed");
        assert!(refusal("-p 1").contains("\"-p\" is not available"));
        assert!(refusal("auxe").contains("\"e\" is not available"), "environments are nobody's business");
    }

    #[test]
    fn trees_and_orders() {
        assert_eq!(parse("auxf").expect("known").order, Order::Tree { drawn: true });
        assert_eq!(parse("-eH").expect("known").order, Order::Tree { drawn: false });
        let sorted = parse("-ef --sort -pcpu,pid").expect("known").order;
        assert_eq!(sorted, Order::Keys(vec![(Column::PercentCpu, true), (Column::Pid, false)]));
    }
}
