-- The dead man's switch: works if Curfew never comes back. A holder can change it; a second line.
ALTER ROLE :"account" SET :setting = :'value';
