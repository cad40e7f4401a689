//! Which name was meant.

/// `; did you mean default/web?`, or some of the names that there are.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let close = names.iter().map(|name| (distance(wanted, name), *name)).min();
    match (close, &names[..]) {
        (None, _) => "; none is known".to_owned(),
        (Some((far, name)), _) if far <= wanted.chars().count().max(4) / 4 => {
            format!("; did you mean {name}?")
        }
        (Some(_), few) if few.len() <= 8 => format!("; there are {}", few.join(", ")),
        (Some(_), many) => {
            format!("; there are {} and {} more", many[..8].join(", "), many.len() - 8)
        }
    }
}

/// How many letters have to be changed, added, taken out, or swapped with the next.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least =
                (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && *a == other[j - 1] {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant() {
        let names = || ["default/web", "default/api", "shop/web"].into_iter();
        assert_eq!(nearest("default/wbe", names()), "; did you mean default/web?");
        assert_eq!(nearest("default/webb", names()), "; did you mean default/web?");
        let all = "; there are default/api, default/web, shop/web";
        assert_eq!(nearest("kube-system/dns", names()), all);
        assert_eq!(nearest("x", std::iter::empty()), "; none is known");
        let many: Vec<String> = (0..12).map(|n| format!("a-long-name-{n:02}")).collect();
        assert!(nearest("x", many.iter().map(String::as_str)).ends_with("-07 and 4 more"));
    }

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("wbe", "web", 1), ("a", "b", 1), ("ab", "ba1", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
