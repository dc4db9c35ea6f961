//! Writes edits to the manifest, on a full disk too.
//!
//! Invariants:
//! 1. An edit whose append met a full disk is *in doubt*. It counts as not made, but its frame may be in the
//!    file in part, and may even turn out whole after a crash. So nothing is appended behind it, no other
//!    edit is made before a fresh manifest is current, and until then every file that it names is kept. A
//!    crash in between finds the state before the edit or after it; both hold the same data.
//! 2. A fresh manifest that met a full disk was never current: [`CURRENT`](crate::files::CURRENT) is
//!    renamed into place last, and a rename that meets a full disk changes nothing.
//! 3. Any other failure leaves it unknown what is on disk, and poisons the store.

use super::ballast;
use super::inner::Inner;
use crate::error::Error;
use crate::files::Numbered;
use crate::version::{Edit, Manifest};

impl Inner {
    /// Makes `edit` true, durably, by appending it or by a fresh manifest with the `whole` state after it.
    ///
    /// If the disk is full, and stays so although the ballast is given back, the edit is not made, or in
    /// doubt; the next one ends the doubt.
    pub(super) fn write_edit(
        &self,
        manifest: &mut Manifest,
        edit: &Edit,
        whole: impl Fn() -> Edit,
    ) -> Result<(), Error> {
        if !manifest.must_be_replaced() {
            match manifest.append(edit) {
                Err(error) if error.is_no_space() => ballast::give_back(self),
                outcome => return outcome,
            };
        }
        match self.replace_manifest(manifest, whole()) {
            Err(error) if error.is_no_space() && ballast::give_back(self) => {
                self.replace_manifest(manifest, whole())
            }
            outcome => outcome,
        }
    }

    /// Starts a fresh manifest in place of an overgrown one, or of one that ends in doubt.
    fn replace_manifest(&self, manifest: &mut Manifest, whole: Edit) -> Result<(), Error> {
        let id = self.state().allocate_file();
        let whole = Edit {
            next_file: Some(id + 1),
            ..whole
        };
        let fs = &*self.env.fs;
        let created = self
            .dir_syncs
            .run(|| Manifest::create(fs, &self.dir, self.store, id, &whole));
        match created {
            Ok(fresh) => {
                let old = std::mem::replace(manifest, fresh);
                self.files
                    .discard(Numbered::Manifest(old.id()).path(&self.dir));
                Ok(())
            }
            Err(error) => {
                if error.is_no_space() {
                    // It was never current, and every byte counts now.
                    Manifest::remove_unfinished(fs, &self.dir, id);
                }
                Err(error)
            }
        }
    }
}
