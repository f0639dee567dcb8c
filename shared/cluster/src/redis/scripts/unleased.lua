-- For servers that keep no leases: those who have one come with it.
return { 'ok', unleased(KEYS[1], ARGV[1], { unpack(ARGV, 2) }) }
