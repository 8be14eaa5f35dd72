//! What other systems read.
