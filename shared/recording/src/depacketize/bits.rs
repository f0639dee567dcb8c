//! Headers that are counted in bits, the most significant first.

#[derive(Debug, Clone)]
pub(super) struct Bits<'b> {
    bytes: &'b [u8],
    /// In bits.
    at: usize,
}

impl<'b> Bits<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let mask = [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01].get(self.at % 8)?;
        self.at = self.at.saturating_add(1);
        Some(byte & mask != 0)
    }

    /// A number of at most 32 bits.
    pub(super) fn number(&mut self, bits: u32) -> Option<u32> {
        let mut number = 0;
        for _ in 0..bits {
            number = number << 1 | u32::from(self.bit()?);
        }
        Some(number)
    }

    pub(super) fn skip(&mut self, bits: u32) -> Option<()> {
        for _ in 0..bits {
            self.bit()?;
        }
        Some(())
    }

    /// ue(v) of H.264 (9.1) and uvlc() of AV1 (4.10.3): as many zeros as bits follow the next one.
    pub(super) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0u32;
        while !self.bit()? {
            zeros = zeros.saturating_add(1);
        }
        let least = 1u32.checked_shl(zeros)?.wrapping_sub(1);
        least.checked_add(self.number(zeros)?)
    }

    /// se(v) of H.264 (9.1.1): 0, 1, -1, 2, -2 …
    pub(super) fn signed_exp_golomb(&mut self) -> Option<i64> {
        let number = i64::from(self.exp_golomb()?);
        let half = number.saturating_add(1) / 2;
        Some(if number % 2 == 0 { half.saturating_neg() } else { half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_top() {
        let mut bits = Bits::new(&[0b1010_0110, 0b1100_0000]);
        assert_eq!((bits.number(3), bits.bit(), bits.number(6)), (Some(0b101), Some(false), Some(0b01_1011)));
        assert_eq!((bits.skip(6), bits.bit(), bits.number(1)), (Some(()), None, None));
        assert_eq!(Bits::new(&[0xff; 4]).number(32), Some(u32::MAX));
        assert_eq!(Bits::new(&[]).number(0), Some(0));
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        // 1, 010, 011, 00100, 00101
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let numbers: Vec<_> = (0..5).map(|_| bits.exp_golomb().unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let numbers: Vec<_> = (0..5).map(|_| bits.signed_exp_golomb().unwrap()).collect();
        assert_eq!(numbers, [0, 1, -1, 2, -2]);
        assert_eq!(Bits::new(&[0, 0, 0, 0, 0x80, 0, 0, 0, 0]).exp_golomb(), None, "33 bits");
        assert_eq!(Bits::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).exp_golomb(), Some(u32::MAX - 1));
    }
}
