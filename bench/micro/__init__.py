"""What single pieces of the hot path cost, in one process: the receipts for what is clever there."""
