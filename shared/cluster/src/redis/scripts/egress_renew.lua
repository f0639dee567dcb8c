-- Renews a recorder's lease, or ends it if there is no time to it.
local id, epoch, life_ms = unpack(ARGV, 4)
local one = stored(id)
if not one then return { 'no egress' } end
if one.epoch ~= tonumber(epoch) then return { 'superseded' } end
one.leased = life_ms == '0' and 0 or now_ms() + tonumber(life_ms)
keep(id, one)
return { 'ok', redis.call('HGET', EGRESSES, id) }
