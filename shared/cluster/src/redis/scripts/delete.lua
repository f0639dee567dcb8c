-- With `if_empty` only if nobody but dependents is in it.
local reason, if_empty = unpack(ARGV, 4)
if not exists() then return { 'no room' } end
if if_empty == '1' and redis.call('HLEN', I) - 1 > sums()[4] then return { 'occupied' } end
close(reason)
return { 'ok' }
