if not exists() then return { 'no room' } end
return { 'ok', snapshot() }
