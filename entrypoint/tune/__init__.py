"""Everything that runs inside `tune run`. No other package of ours imports torchtune."""
