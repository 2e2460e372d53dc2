//! The copy that is being prepared.

use std::ops::Range;

use super::data_file::DataFile;
use super::{Publication, Writer};
use bliss_os::file;

use crate::checksum::{Blocks, LINE};
use crate::error::Error;
use crate::layout::MAX_BYTES;

/// The copy that is not current, to be filled and then published.
///
/// Dropped without [`publish`](Self::publish) it is abandoned: it then holds nothing, and the current one stays.
/// After a fork it belongs to the parent; in the child there are no bytes to be written.
#[derive(Debug)]
pub struct Standby<'a> {
    writer: &'a mut Writer,
    bytes: u64,
    holds: Option<u64>,
    held_len: u64,
    /// What the caller says was changed; `None`: nothing was said.
    touched: Option<Vec<Range<u64>>>,
    /// The sums of the blocks are kept up to date for some changes.
    accounted: bool,
    /// The bytes were lent to be changed without account.
    lent: bool,
    reset: bool,
    published: bool,
    /// The checksum, if it was made while the bytes were written.
    checksum: Option<u64>,
}

impl<'a> Standby<'a> {
    pub(super) fn begin(writer: &'a mut Writer, bytes: u64, reset: bool) -> Result<Standby<'a>, Error> {
        let mut standby = Standby {
            writer,
            bytes,
            holds: None,
            held_len: 0,
            touched: None,
            accounted: false,
            lent: false,
            reset,
            published: false,
            checksum: None,
        };
        let copy = standby.copy_mut()?;
        let (holds, held_len) = (copy.holds, copy.bytes);
        if holds.is_none() {
            copy.blocks.forget();
        }
        copy.unseal();
        standby.holds = holds;
        standby.held_len = if holds.is_some() { held_len } else { 0 };
        Ok(standby)
    }

    fn index(&self) -> usize {
        usize::from((self.writer.generation + 1) & 1 == 1)
    }

    fn copy(&self) -> Option<&DataFile> {
        self.writer.fresh.as_ref().or_else(|| self.writer.copies.get(self.index())?.as_ref())
    }

    fn copy_mut(&mut self) -> Result<&mut DataFile, Error> {
        let index = self.index();
        let writer = &mut *self.writer;
        match &mut writer.fresh {
            Some(fresh) => Some(fresh),
            None => writer.copies.get_mut(index).and_then(Option::as_mut),
        }
        .ok_or(Error::NotPublished)
    }

    /// The generation whose bytes this copy still holds, all [`held_len`](Self::held_len) of them; `None` if it holds
    /// nothing of use. To bring it up to date, apply what changed since that generation.
    pub fn holds(&self) -> Option<u64> {
        self.holds
    }

    /// Size in bytes of what the copy [`holds`](Self::holds); 0 if nothing.
    pub fn held_len(&self) -> u64 {
        self.held_len
    }

    /// The bytes of the current publication.
    pub fn current(&self) -> Option<&[u8]> {
        self.writer.current()
    }

    /// The generation that publishing will make.
    pub fn next_generation(&self) -> u64 {
        self.writer.generation + 1
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Its bytes. What lies beyond [`held_len`](Self::held_len) and was not written since is of any value.
    pub fn bytes(&self) -> &[u8] {
        self.copy().and_then(|copy| copy.slice(self.bytes)).unwrap_or_default()
    }

    /// Its bytes, to be written. Page-aligned.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.writer.check_process().is_err() {
            return &mut [];
        }
        let bytes = self.bytes;
        self.lend();
        self.copy_mut().ok().and_then(|copy| copy.slice_mut(bytes)).unwrap_or_default()
    }

    /// Whoever has the bytes may change any of them.
    fn lend(&mut self) {
        self.checksum = None;
        self.lent = true;
    }

    /// Replaces all its bytes by others of the same number.
    pub(super) fn fill(&mut self, from: &[u8]) {
        if self.writer.check_process().is_err() {
            return;
        }
        let threads = self.writer.threads;
        let Ok(copy) = self.copy_mut() else { return };
        let parts = copy.parts_mut(from.len() as u64);
        let checksum = parts.map(|(to, blocks)| blocks.copy(to, from, threads));
        self.checksum = checksum.filter(|_| from.len() as u64 == self.bytes);
    }

    /// Makes it a copy of the current publication, as large, with nothing changed. Does nothing if there is none.
    ///
    /// # Errors
    ///
    /// As [`resize`](Self::resize).
    pub fn copy_current(&mut self) -> Result<(), Error> {
        self.writer.check_process()?;
        let Some(bytes) = self.current().map(|bytes| bytes.len() as u64) else { return Ok(()) };
        self.resize(bytes)?;
        let Writer { copies: [zero, one], fresh, generation, threads, .. } = &mut *self.writer;
        let (current, other) = if *generation & 1 == 0 { (zero, one) } else { (one, zero) };
        let held = current.as_ref().filter(|copy| *generation != 0 && copy.holds == Some(*generation));
        let from = held.and_then(DataFile::payload).unwrap_or_default();
        if let Some((to, blocks)) = fresh.as_mut().or(other.as_mut()).and_then(|copy| copy.parts_mut(bytes)) {
            self.checksum = Some(blocks.copy(to, from, *threads));
            // What was changed before is gone.
            (self.touched, self.accounted, self.lent) = (None, true, false);
        }
        Ok(())
    }

    /// Its bytes, to be changed with each change accounted for, so that publishing costs in proportion to what was
    /// changed. Changes by other means, before or after, are to be named by [`touch`](Self::touch), or everything is
    /// summed again.
    pub fn edit(&mut self) -> Edit<'_> {
        if self.writer.check_process().is_err() {
            return Edit { bytes: &mut [], blocks: None };
        }
        self.checksum = None;
        self.accounted = true;
        let bytes = self.bytes;
        match self.copy_mut().ok().and_then(|copy| copy.parts_mut(bytes)) {
            Some((bytes, blocks)) => {
                blocks.fit(bytes.len());
                Edit { bytes, blocks: Some(blocks) }
            }
            None => Edit { bytes: &mut [], blocks: None },
        }
    }

    /// Lends the sums of the blocks to one who writes all bytes in order.
    pub(super) fn lend_blocks(&mut self) -> Blocks {
        let mut blocks = self.copy_mut().map(|copy| std::mem::take(&mut copy.blocks)).unwrap_or_default();
        blocks.begin();
        blocks
    }

    /// Takes them back: they are of all bytes.
    pub(super) fn return_blocks(&mut self, mut blocks: Blocks) {
        self.checksum = Some(blocks.end(usize::try_from(self.bytes).unwrap_or(0)));
        if let Ok(copy) = self.copy_mut() {
            copy.blocks = blocks;
        }
    }

    /// The bytes of the current publication, and those to be written: they are different copies, so that one can be
    /// filled from the other.
    pub fn current_and_bytes_mut(&mut self) -> (Option<&[u8]>, &mut [u8]) {
        if self.writer.check_process().is_err() {
            return (None, &mut []);
        }
        self.lend();
        let bytes = self.bytes;
        let Writer { copies: [zero, one], fresh, generation, .. } = &mut *self.writer;
        let (current, other) = if *generation & 1 == 0 { (zero, one) } else { (one, zero) };
        let held = current.as_ref().filter(|copy| *generation != 0 && copy.holds == Some(*generation));
        let standby = fresh.as_mut().or(other.as_mut()).and_then(|copy| copy.slice_mut(bytes));
        (held.and_then(DataFile::payload), standby.unwrap_or_default())
    }

    /// Changes the size. What lies before the smaller of both sizes stays.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Io`], [`Error::Forked`]; the size is then unchanged.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Error> {
        self.writer.check_process()?;
        if bytes > MAX_BYTES {
            return Err(Error::TooLarge { bytes, limit: MAX_BYTES });
        }
        let index = self.index();
        let writer = &mut *self.writer;
        let copy = match &mut writer.fresh {
            Some(fresh) => Some(fresh),
            None => writer.copies.get_mut(index).and_then(Option::as_mut),
        };
        copy.ok_or(Error::NotPublished)?.make_room(bytes, &writer.paths, &writer.options)?;
        self.checksum = None;
        self.bytes = bytes;
        Ok(())
    }

    /// Says which bytes were changed, so that only their blocks are summed again. If it is never called, all are, unless
    /// they were only changed by [`edit`](Self::edit). A change of size needs no call. Once it is called, bytes that are
    /// changed otherwise and not named make the checksum wrong.
    pub fn touch(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.touched.get_or_insert_default().push(range);
        }
    }

    /// Makes these bytes the current publication.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a fresh file could not get its name, [`Error::Forked`]; what was current stays so.
    pub fn publish(mut self) -> Result<Publication, Error> {
        self.writer.check_process()?;
        let bytes = self.bytes;
        let checksum = match self.checksum {
            Some(checksum) => checksum,
            None => {
                let threads = self.writer.threads;
                let by_edits_only = self.accounted && !self.lent;
                let mut touched = self.touched.take().or_else(|| by_edits_only.then(Vec::new));
                let copy = self.copy_mut()?;
                let mut blocks = std::mem::take(&mut copy.blocks);
                let checksum =
                    blocks.update(copy.slice(bytes).unwrap_or_default(), touched.as_mut(), threads);
                copy.blocks = blocks;
                checksum
            }
        };
        let reset = self.reset;
        let published = self.writer.switch(bytes, checksum, reset)?;
        self.published = true;
        Ok(published)
    }
}

/// The bytes of a [`Standby`], of which each change is accounted for.
#[derive(Debug)]
pub struct Edit<'a> {
    bytes: &'a mut [u8],
    blocks: Option<&'a mut Blocks>,
}

impl Edit<'_> {
    /// The bytes as they are now.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Asks the processor for the lines of a range that will be changed soon, so that the change need not wait for them. A
    /// hint without other effect. Worth it where ranges are scattered: some ten of them ahead.
    #[inline]
    pub fn ask_ahead(&self, range: Range<usize>) {
        let lines = self.bytes.get(range.start / LINE * LINE..range.end.min(self.bytes.len()));
        lines.unwrap_or_default().chunks(LINE).for_each(prefetch);
    }

    /// Lets `change` change the bytes of a range, cut off at the end. The cost is that of reading its lines twice.
    #[inline]
    pub fn change<R>(&mut self, range: Range<usize>, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let end = range.end.min(self.bytes.len());
        let range = range.start.min(end)..end;
        match &mut self.blocks {
            Some(blocks) => blocks.edit(self.bytes, range, change),
            None => change(self.bytes.get_mut(range).unwrap_or_default()),
        }
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        if self.published || self.writer.check_process().is_err() {
            return;
        }
        if let Some(fresh) = self.writer.fresh.take() {
            // It may be another writer's by now.
            if let Ok(name) = self.writer.paths.fresh()
                && !fresh.is_replaced(&name)
            {
                let _ = file::unlink(&name);
            }
        } else if let Ok(copy) = self.copy_mut() {
            copy.blocks.forget();
        }
    }
}

#[inline]
fn prefetch(line: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY:
        // - every x86-64 processor has SSE, and a prefetch reads nothing that the program could see and never faults
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
