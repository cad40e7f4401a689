//! A plan as a shell script, for those who put changes on nodes by other means than `unmasq`.
//!
//! ```text
//!  Plan ─ deeds ─▶ for each: before_N after_N now_N apply_N undo_N ─▶ one main part that uses them
//!        └ steps of people ─▶ comments
//! ```
//!
//! It is for a POSIX shell, does nothing until it is told what and where, and compares like
//! `unmasq fix --apply`: where something is neither as it was captured nor as it should be, nothing
//! is done.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use unmasq_audit::steers;
use unmasq_fix::deed::Deed;
use unmasq_fix::{By, Plan};

use crate::audit::Subject;
use crate::comments::{Comments, difference, finding, person, step_title};

mod change;

use change::{Change, word};

/// Where kubectl works: no node's name has capitals.
const CLUSTER: &str = "KUBECTL";

/// The plan as a script.
pub fn script(plan: &Plan, subject: &Subject<'_>) -> String {
    let mut text = String::from("#!/bin/sh\n");
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut steps = String::new();
    let mut number = 0;
    for (index, step) in plan.steps.iter().enumerate() {
        steps.push('\n');
        let mut comments = Comments::new(&mut steps);
        comments.say(&step_title(index, step, plan));
        comments.say(&step.text);
        match &step.by {
            By::Person(which) => person(&mut comments, step, *which, plan),
            By::Unmasq(deeds) if deeds.is_empty() => {
                comments.say("Nothing is left to do: an earlier step does it.");
            }
            By::Unmasq(deeds) => {
                for deed in deeds {
                    number += 1;
                    if write_deed(&mut steps, number, deed, plan) {
                        places.entry(place(deed).to_owned()).or_default().push(number);
                    }
                }
            }
        }
    }
    head(&mut text, plan, subject, &places);
    text.push_str(&steps);
    text.push_str(HELPERS);
    main_part(&mut text, &places);
    text
}

fn head(
    text: &mut String,
    plan: &Plan,
    subject: &Subject<'_>,
    places: &BTreeMap<String, Vec<usize>>,
) {
    let mut comments = Comments::new(text);
    let of =
        subject.capture.map_or("this host".to_owned(), |capture| format!("the capture {capture}"));
    comments.say(&format!("Made by unmasq {} from {of}. It mends:", subject.version));
    for mended in &plan.mended {
        comments.below(&format!("{}: {}", finding(mended), mended.remedy.title));
    }
    comments.say("");
    comments.say(
        "How to use it, on each node as root: see what it would do by reading, then do it; and how \
         to take it back:",
    );
    for place in places.keys() {
        comments.line(&format!("  sh SCRIPT apply {place}"));
    }
    for place in places.keys().rev() {
        comments.line(&format!("  sh SCRIPT undo {place}"));
    }
    if places.contains_key(CLUSTER) {
        comments.say(&format!("{CLUSTER} is not a node: it is done once, where kubectl works."));
    }
    comments.say(
        "Each change is one transaction of its program. If a chain, table, file or object is neither \
         as it was captured nor as it should be, nothing is done: plan again. What is done already \
         is left alone.",
    );
    text.push_str("set -eu\nLC_ALL=C\nexport LC_ALL\numask 022\n");
}

/// Where it is done.
fn place(deed: &Deed) -> &str {
    deed.node().unwrap_or(CLUSTER)
}

/// The functions of a change. `false`: it is only told, as something for a person.
fn write_deed(text: &mut String, number: usize, deed: &Deed, plan: &Plan) -> bool {
    let mut comments = Comments::new(text);
    comments.line(&deed.subject());
    difference(&mut comments, deed);
    let written = match Change::of(deed, plan) {
        Ok(change) => functions(number, deed, &change),
        Err(why) => {
            comments.say(&format!("NOT IN THIS SCRIPT, do it by hand: {why}"));
            return false;
        }
    };
    // A terminal must show what a shell runs.
    if written.contains(|c| steers(c) && c != '\n' && c != '\t') {
        comments.say("NOT IN THIS SCRIPT, do it by hand: there are control characters in it");
        return false;
    }
    text.push_str(&written);
    true
}

fn functions(number: usize, deed: &Deed, change: &Change) -> String {
    let Change { before, after, now, apply, undo } = change;
    let mut text = String::new();
    let shown = |lines: &[String]| match lines {
        [] => "    :\n".to_owned(),
        lines => {
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            change::heredoc("cat", &lines)
        }
    };
    for (name, body) in [
        ("what", &format!("    printf '%s\\n' {}\n", word(&deed.subject()))),
        ("before", &shown(before)),
        ("after", &shown(after)),
        ("now", now),
        ("apply", apply),
        ("undo", undo),
    ] {
        let _ = write!(text, "{name}_{number}() {{\n{body}}}\n");
    }
    text
}

/// What the steps' functions use, and who uses them.
const HELPERS: &str = r#"
# Puts a line in the place of another one of a file, whose blanks, mode and owner stay.
replace_line() {
    file=$(readlink -f "$1")
    cp -p "$file" "$file.unmasq"
    OLD=$2 NEW=$3 awk '{
        line = $0
        gsub(/^[ \t]+|[ \t]+$/, "", line)
        if (line == ENVIRON["OLD"]) {
            at = index($0, line)
            $0 = substr($0, 1, at - 1) ENVIRON["NEW"] substr($0, at + length(line))
        }
        print
    }' "$file" >"$file.unmasq"
    mv "$file.unmasq" "$file"
}

# Changes a JSON file by a filter of jq; one that has nothing left in it goes, if $3 says so.
edit_json() {
    if [ ! -e "$1" ]; then
        mkdir -p "$(dirname "$1")"
        echo '{}' >"$1"
    fi
    file=$(readlink -f "$1")
    cp -p "$file" "$file.unmasq"
    jq "$2" "$file" >"$file.unmasq"
    mv "$file.unmasq" "$file"
    if [ "${3-}" = made ] && [ "$(jq -c . "$file")" = '{}' ]; then
        rm "$file"
    fi
}

# Which of its two states a change is in.
state() {
    there=$("now_$1") || return 1
    if [ "$there" = "$("after_$1")" ]; then
        echo after
    elif [ "$there" = "$("before_$1")" ]; then
        echo before
    else
        echo neither
    fi
}

usage() {
    echo "usage: sh $0 apply|undo PLACE, where PLACE is one of: $places" >&2
    exit 2
}
"#;

fn main_part(text: &mut String, places: &BTreeMap<String, Vec<usize>>) {
    let names: Vec<&str> = places.keys().map(String::as_str).collect();
    let _ = write!(text, "\nplaces={}\n", word(&names.join(" ")));
    text.push_str("case ${1-},${2-} in\n");
    for (place, numbers) in places {
        let list = |numbers: &mut dyn Iterator<Item = &usize>| {
            numbers.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let (forth, back) = (list(&mut numbers.iter()), list(&mut numbers.iter().rev()));
        let place = word(place);
        let _ = writeln!(text, "apply,{place}) from=before to=after changes='{forth}' ;;");
        let _ = writeln!(text, "undo,{place}) from=after to=before changes='{back}' ;;");
    }
    text.push_str("*) usage ;;\nesac\n");
    text.push_str(MAIN);
}

const MAIN: &str = r#"
# First all are looked at, then the first is done.
for change in $changes; do
    state=$(state "$change")
    if [ "$state" != "$from" ] && [ "$state" != "$to" ]; then
        {
            echo "refused, and nothing is done: this is neither as it was captured nor as it should be:"
            "what_$change"
            echo "there is:"
            "now_$change"
        } >&2
        exit 1
    fi
done
for change in $changes; do
    if [ "$(state "$change")" = "$to" ]; then
        printf 'already: '
        "what_$change"
        continue
    fi
    "$1_$change"
    if [ "$(state "$change")" != "$to" ]; then
        printf 'not as it should be afterwards: ' >&2
        "what_$change" >&2
        exit 1
    fi
    printf 'done: '
    "what_$change"
done
"#;
