-- Keeps a recording that somebody asked for, or, with `lost`, one that this server has lost and whose recorder has not.
local id, sid, status, version, epoch, lost, egress = unpack(ARGV, 4)
if stored(id) then return { 'ok', redis.call('HGET', EGRESSES, id) } end
if lost ~= '1' and (not exists() or redis.call('HGET', X, 'sid') ~= sid) then return { 'no room' } end
if not make_place() then return { 'too many egresses' } end
local one = { epoch = tonumber(epoch), version = version, status = tonumber(status), sid = sid, leased = 0, node = '-',
  life = '0' }
redis.call('HSET', EGRESSES, id, egress)
keep(id, one)
if lost ~= '1' then tell_of(one, egress) end
show()
return { 'ok', egress }
