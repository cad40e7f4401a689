//! `ipset save` of real nodes.

use std::fs;
use std::path::Path;

use unmasq_model::ipset::Content;
use unmasq_model::origin::FileId;
use unmasq_parse::ipset::parse;

use crate::Case;
use crate::folder::files;

pub(crate) const TESTS: &[Case] =
    &[("ipset::the_corpus_is_understood_in_full", "corpus", understood)];

fn understood(corpus: &Path) {
    let mut seen = 0;
    for path in files(corpus) {
        if path.extension().is_none_or(|extension| extension != "ipset") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a listing is text");
        let (sets, diagnostics) = parse(&text, FileId(0));
        assert_eq!(diagnostics, [], "{}", path.display());
        for set in sets.values() {
            assert!(!matches!(set.content, Content::Opaque(_)), "{set:?}");
            assert_eq!(set.opaque, None);
        }
        seen += sets.len();
    }
    assert!(seen > 5, "only {seen} sets in the corpus");
}
