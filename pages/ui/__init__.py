"""What the dashboard's pages share. No page is in here, and `embedcache` imports none of it."""
