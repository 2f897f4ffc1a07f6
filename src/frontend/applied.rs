//! What elasticd has applied to a frontend over its runtime API since the two last agreed. It separates elasticd's own changes
//! from those of others: what was the same in all that was applied, and differs in the frontend, was changed by others.

use std::sync::Arc;

use super::apply::Rendered;
use super::config::Output;
use super::digest::Digest;

/// What was applied: first what the frontend agreed with, then the attempts since then. Empty: that is not known.
#[derive(Debug, Default)]
pub struct Applied(Vec<Arc<Rendered>>);

impl Applied {
    /// More attempts than that are not kept: whatever differs in some of them is elasticd's own.
    const MOST: usize = 4;

    /// After a start: the outputs in place, if they are what the frontend was proven to run. Blocks.
    pub fn read(&mut self, outputs: &[Output], on_disk: &Digest, proven: Option<&Digest>) {
        if !self.0.is_empty() || proven != Some(on_disk) {
            return;
        }
        let contents: Result<Vec<_>, _> = outputs.iter().map(|output| std::fs::read_to_string(&output.path)).collect();
        let read = contents.ok().map(|contents| Rendered::new(outputs, contents, 0));
        // They may have been changed meanwhile.
        self.0.extend(read.filter(|read| read.digest == *on_disk).map(Arc::new));
    }

    /// The frontend agrees with these.
    pub fn agreed(&mut self, rendered: &Arc<Rendered>) {
        self.0 = vec![Arc::clone(rendered)];
    }

    /// These were applied, or a part of them. `true`: for the first time.
    pub fn attempted(&mut self, rendered: &Arc<Rendered>) -> bool {
        if self.0.iter().any(|applied| applied.digest == rendered.digest) {
            return false;
        }
        if !self.0.is_empty() {
            self.0.truncate(Self::MOST - 1);
            self.0.push(Arc::clone(rendered));
        }
        true
    }

    /// What was applied before an attempt at these. An earlier attempt at the same is none that came before.
    pub fn before(&self, rendered: &Rendered) -> Vec<Arc<Rendered>> {
        let counts = |&(index, applied): &(usize, &Arc<Rendered>)| index == 0 || applied.digest != rendered.digest;
        self.0.iter().enumerate().filter(counts).map(|(_, applied)| Arc::clone(applied)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(content: &str) -> Arc<Rendered> {
        let digest = Digest::of(content.as_bytes());
        Arc::new(Rendered { contents: vec![content.to_owned()], digests: vec![digest.clone()], digest, revision: 1 })
    }

    fn before(applied: &Applied, content: &str) -> String {
        applied.before(&rendered(content)).iter().map(|applied| applied.contents[0].as_str()).collect()
    }

    #[test]
    fn attempts_count_until_the_frontend_agrees_again() {
        let mut applied = Applied::default();
        assert!(applied.attempted(&rendered("x")));
        assert_eq!(before(&applied, "x"), "", "nothing is known before the frontend agreed once");
        applied.agreed(&rendered("a"));
        assert!(applied.attempted(&rendered("b")) && !applied.attempted(&rendered("b")));
        assert_eq!(
            (before(&applied, "a"), before(&applied, "b"), before(&applied, "c")),
            ("ab".into(), "a".into(), "ab".into())
        );
        for content in ["c", "d", "e", "f"] {
            applied.attempted(&rendered(content));
        }
        assert_eq!(before(&applied, "g").len(), Applied::MOST);
        assert!(before(&applied, "g").starts_with('a') && before(&applied, "g").ends_with('f'));
        applied.agreed(&rendered("g"));
        assert_eq!(before(&applied, "h"), "g");
    }
}
