//! Which name of a given list was meant.

use super::distance;

/// `; did you mean default/web?`, or some of the names that there are.
pub fn meant<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_meant() {
        let names = || ["default/web", "default/api", "shop/web"].into_iter();
        assert_eq!(meant("default/wbe", names()), "; did you mean default/web?");
        assert_eq!(meant("default/webb", names()), "; did you mean default/web?");
        let all = "; there are default/api, default/web, shop/web";
        assert_eq!(meant("kube-system/dns", names()), all);
        assert_eq!(meant("x", std::iter::empty()), "; none is known");
        let many: Vec<String> = (0..12).map(|n| format!("a-long-name-{n:02}")).collect();
        assert!(meant("x", many.iter().map(String::as_str)).ends_with("-07 and 4 more"));
    }
}
