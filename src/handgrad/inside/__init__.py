"""Looking into a trained network: reopened, asked, checked, watched and stepped through."""
